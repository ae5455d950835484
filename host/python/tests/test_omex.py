"""What the package promises, on the model that ships, and on others where OMEX_MODELS says that they are."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

import omex

MODELS = Path(os.environ.get("OMEX_MODELS", "models"))


def model(name: str, **options) -> omex.Model:
    path = MODELS / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return omex.open(path, **options)


@pytest.fixture
def stories():
    return model("stories.omex", memory=64_000_000, context=128)


def test_a_plan_adds_up_and_a_budget_that_is_too_small_is_refused():
    if not (MODELS / "stories.omex").exists():
        pytest.skip("no model")
    plan = omex.plan(MODELS / "stories.omex", memory=64_000_000)
    assert sum(plan["bytes"].values()) == plan["total"] <= 64_000_000
    with pytest.raises(omex.Error, match="the budget of 1000 bytes is"):
        omex.open(MODELS / "stories.omex", memory=1000)
    with pytest.raises(omex.Error, match="nowhere.omex"):
        omex.plan("nowhere.omex")


def test_a_text_comes_in_pieces_and_is_the_same_each_time(stories):
    pieces = list(stories.generate("The robot", max_tokens=20))
    assert len(pieces) > 5 and "".join(pieces).isprintable()
    assert "".join(stories.generate("The robot", max_tokens=20)) == "".join(pieces)
    ids = stories.encode("The robot")
    assert stories.decode(ids).strip().endswith("The robot")
    assert "".join(stories.generate(ids, max_tokens=20)) == "".join(pieces)
    stopped = "".join(stories.generate("The robot", max_tokens=20, stop=[pieces[3]]))
    assert "".join(pieces).startswith(stopped) and len(stopped) < len("".join(pieces))
    with pytest.raises(omex.Error, match="temperature"):
        stories.generate("The robot", temperature=-1)


def test_a_text_that_is_left_gives_the_model_back(stories):
    text = stories.generate("Once")
    first = next(text)
    with pytest.raises(omex.Error, match="in use"):
        stories.generate("Once")
    text.close()
    assert list(text) == []
    text = stories.generate("Once")
    assert next(text) == first
    del text
    assert next(stories.generate("Once")) == first


def test_logits_are_those_that_tokens_are_chosen_from(stories):
    ids = stories.encode("The robot")
    logits = stories.logits(ids)
    assert logits.shape == (len(ids), logits.shape[1]) and logits.dtype == np.float32
    chosen = int(logits[-1].argmax())
    assert stories.decode([*ids, chosen]).endswith(next(stories.generate(ids)))
    several = model("stories.omex", logits=8).logits(ids)
    assert (several == logits).all()


def test_other_threads_run_while_a_text_is_generated(stories):
    seen = []
    ticking = threading.Event()

    def tick():
        while not ticking.wait(0.001):
            seen.append(None)

    thread = threading.Thread(target=tick)
    thread.start()
    stories.logits(stories.encode("Once upon a time there was a robot. " * 4))
    ticking.set()
    thread.join()
    assert seen


def test_arrays_are_checked_and_bit_equal_to_the_reference():
    keywords = model("keywords.omex")
    reference = np.load(MODELS / "keywords.npz")
    ((name, tensor),) = keywords.inputs.items()
    assert tensor["dtype"] == np.int8
    for sample, expected in zip(reference["inputs"], reference["out_tflm"], strict=True):
        (found,) = keywords.infer(sample).values()
        assert found.dtype == np.int8 and (found.reshape(-1) == expected.reshape(-1)).all()
    backwards = np.ascontiguousarray(reference["inputs"][0][::-1])[::-1]
    assert not backwards.flags.c_contiguous
    (found,) = keywords.infer({name: backwards}).values()
    assert (found.reshape(-1) == reference["out_tflm"][0].reshape(-1)).all()
    with pytest.raises(omex.Error, match="found float32 .*, expected int8"):
        keywords.infer(reference["inputs"][0].astype(np.float32))
    with pytest.raises(omex.Error, match="expected"):
        keywords.infer({"other": reference["inputs"][0]})
    with pytest.raises(omex.Error):
        list(keywords.generate([1]))


def test_a_model_that_writes_takes_no_arrays_and_makes_no_vectors(stories):
    with pytest.raises(omex.Error, match="no vectors"):
        stories.embed("Once")
    with pytest.raises(omex.Error, match="there are none"):
        stories.infer(np.zeros(3, np.float32))
    with pytest.raises(omex.Error, match="no chat template"):
        stories.chat([{"role": "user", "content": "Hello"}])
