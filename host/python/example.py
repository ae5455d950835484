"""A tour: python3 example.py MODEL.omex [MEMORY]. Each part can be pasted into a notebook's cell."""

# %% What will it take?
import sys

import omex

path = sys.argv[1]
memory = int(sys.argv[2]) if len(sys.argv) > 2 else None
plan = omex.plan(path, memory=memory)
print(f"{plan['total']:,} bytes, {plan['bytes']['weights']:,} of them weights that stay; {plan['context']} positions")

# %% A text, as it comes
model = omex.open(path, memory=memory)
for piece in model.generate("Once upon a time", max_tokens=60):
    print(piece, end="", flush=True)
print()

# %% The same, with some chance; a seed makes it the same each time
print("".join(model.generate("Once upon a time", max_tokens=60, temperature=0.8, top_p=0.95, seed=7)))

# %% How sure is it?
ids = model.encode("The robot was very")
logits = model.logits(ids)[-1]
for token in logits.argsort()[::-1][:5]:
    print(f"{logits[token]:8.3f} {model.decode([*ids, int(token)])!r}")
