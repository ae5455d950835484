#!/usr/bin/env python3
"""Make the tiny story model that ships with OMEX (models/tiny-stories/).

One command does everything, from nothing but this file:

  1. writes its own training text: short stories drawn from the seeded grammar below
     (PEOPLE, OPENINGS, PLOTS), every word of which was written for this project;
  2. trains a 576-piece BPE tokenizer in the SentencePiece manner (word starts marked with
     U+2581, byte fallback, no merge across a word start) and saves it as tokenizer.json;
  3. trains a small Llama (RMSNorm, RoPE, grouped-query attention, SwiGLU, tied embeddings,
     388 thousand parameters) with AdamW and a cosine schedule;
  4. writes a Hugging Face directory: config.json, model.safetensors (float16),
     tokenizer.json, and generation_check.json, a record of what the float16 weights
     generate and score, to check other runtimes against.

Needs Python 3.9+ and, from PyPI: torch, tokenizers, safetensors, numpy
(last run with the versions that generation_check.json names under "made_with").
Takes about a quarter of an hour on one CPU core with --compile (needs a C++ compiler), about
25 minutes without it, and 3 GB of memory; no GPU is used. Sums are rounded differently by
other torch versions and processors, so expect a similar model, not the same bits.

  python train_tiny.py --compile --out tiny-stories     # the whole thing
  python train_tiny.py --print-stories 5                # only look at the training text
"""
import argparse, json, math, os, random, re, shutil, time

# ---------------------------------------------------------------------------------------------
# 1. The story grammar
# ---------------------------------------------------------------------------------------------
# In a text, [a|b|c] picks one alternative (nesting allowed) and {x} inserts a variable. Each
# line of a plot is one step of the story. "@a,b = x;y | z;w" picks variables together. "!norobot" keeps robots out of a plot.
# {H}: the hero's name, {k}: what the hero is, {he} {him} {his}: pronouns; {F} {f} {fhe} {fhim}
# {fhis}: the same for the friend. A capitalised variable ({He}, {Fhe}) is capitalised text.

GIRLS = "Mina Rosa Ada Nell Ivy June".split()
BOYS = "Tom Otto Pip Sam Leo Max".split()
PEOPLE = ["robot"] * 3 + ["cat", "fox", "mouse", "bear", "duck", "rabbit", "boy", "girl",
                          "gardener", "sailor", "baker"] + ["keeper"] * 2
FRIENDS = ["robot", "cat", "fox", "mouse", "bear", "duck", "rabbit", "boy", "girl", "gardener",
           "sailor", "baker", "owl", "goat", "keeper"]
# What a hero of each kind is most likely to meet.
FAVOURITES = {
    "robot": ["empty battery", "the seed"], "cat": ["noise at night", "up a tree"], "fox": ["lost in fog", "the star"],
    "mouse": ["noise at night", "new friend"], "bear": ["cold bird", "lost thing"], "duck": ["leaky boat", "the race"],
    "rabbit": ["the race", "dry garden"], "boy": ["broken thing", "lost thing"], "girl": ["the star", "up a tree"],
    "gardener": ["dry garden", "the seed"], "sailor": ["leaky boat", "lost in fog"], "baker": ["birthday cake", "feeling ill"],
    "keeper": ["storm", "cold bird"]}
TRAITS = "little|small|brave|kind|clever|shy|young|happy|quiet|curious"
FRIEND_TRAITS = "old|kind|wise|clever|friendly|big|young|gentle"
HOMES = """in a small house by the sea|in a red house on the hill|at the edge of the forest
beside a quiet river|in a little town by the sea|in a green valley|near the old bridge
on a small farm|on a small island|in a blue house near the harbor""".replace("\n", "|")
LIGHTHOUSES = "in a tall lighthouse by the sea|in an old lighthouse on a small island|in a white lighthouse on the hill"

OPENINGS = """
Once upon a time, there was [a {t} {kk}|a {kk}] called {H}. {He} lived {home}.
Once upon a time, there was a {t} {kk} [called|named] {H} who lived {home}.
Once upon a time, a {t} {kk} called {H} lived {home}.
Once upon a time, a {t} {kk} lived {home}. {His} name was {H}.
{H} was a {t} {kk} who lived {home}.
{H} the {kk} lived {home}. {He} was [very |]{t}.
There was once a {t} {kk} called {H}. {He} lived {home}.
The {kk} was called {H}. {He} was {t}, and {he} lived {home}.
The {t} {kk} was called {H}. {He} lived {home}.
The {kk} who lived {home} was called {H}.
The {kk} {H} lived {home}. {He} was [very |]{t}.
A {t} {kk} called {H} lived {home}.
A {t} {kk} lived {home}. {His} name was {H}.
In the morning, the sun came up [over the hill|over the sea|over the forest]. A {t} {kk} called {H} [woke up|opened the door|looked out of the window].
It was a [warm|cold|bright|quiet|fine] [morning|day]. A {t} {kk} called {H} was [sitting in the garden|walking by the water|looking at the sky|singing a song].
It was raining. A {t} {kk} called {H} [sat by the fire|looked out of the window].
Long ago, [a {t} {kk}|a {kk}] called {H} lived {home}.
{Home}, there lived a {t} {kk} called {H}.
{H} lived {home}. {He} was a {t} {kk}.
This is the story of a {t} {kk} called {H}. {He} lived {home}.
The [{t} {kk}|{kk}] was [sitting in the garden|walking by the water|looking at the sky|singing a song]. {His} name was {H}, and {he} lived {home}.
The [{t} {kk}|{kk}] {H} was [sitting in the garden|walking by the water|looking at the sky|singing a song].
One day, a {t} {kk} called {H} was [sitting in the garden|walking by the water|looking at the sky|singing a song].
One day, a {t} {kk} came to live {home}. {His} name was {H}.
"""
HABITS = """
Every morning, {he} [fed the birds|watched the boats|swept the floor|watered the flowers|walked to the water|opened all the windows].
Every evening, {he} [looked at the stars|sang a little song|sat by the fire|read a book|watched the sea].
{He} loved [the sea|the rain|music|the stars|flowers|the wind|old stories] more than anything.
{He} had [a warm bed|a round window|a yellow coat|a green door|a small garden] and [a good friend|many books|a blue lamp].
{He} liked to [sing|paint|dance|read|make things|look at the clouds], but most of all {he} liked to [help|learn new things|play outside|visit friends].
"""
ENDINGS = """
That night, {H} [slept very well|went to bed with a smile|fell asleep at once|dreamed of the sea].
From that day on, {H} and {F} were [best friends|good friends|always together].
After that, {H} and {F} [met every day|played together every day|had tea together every week].
{H} was [very happy|glad|proud], and so was {F}.
{H} never forgot that day.
They [laughed|sang|talked] [all the way home|until the stars came out|until the sun went down].
And {H} knew that [a good friend is better than gold|it is good to help|it is good to ask for help|two friends can do more than one].
"""

PLOTS = {
"lost thing": """
@thing,spot,look = red ball;under the bed;the box | silver key;in {his} own pocket;the drawer | old map;behind the door;the box | green hat;on top of the roof;the kitchen | blue kite;up in the apple tree;the shed | little bell;in the tall grass;the kitchen | yellow boat;behind the big stone;the shed
[One day|One morning], {he} could not find {his} {thing}. ["Oh no!" said {H}. "Where is it?"|"Where is my {thing}?" cried {H}.]
{He} looked in {look} and [in the garden|under the table|by the well], but it was not there.
Then {F}, a {ft} {f}, came by. "Why are you sad?" asked {F}. "I lost my {thing}," said {H}.
["Do not worry," said {F}. "I will help you."|"Then let us look together," said {F}.] [They looked for a long time.|They looked high and low.]
["Look!" {fhe} said.|At last {F} began to laugh. "See!" {fhe} said.] The {thing} was {spot}!
["Thank you, {F}!" said {H}.|{H} laughed too and gave {fhim} a hug.|{H} jumped for joy.]
""",
"storm": """
@what,fix = oil;poured the oil into | wire;put the wire into | new glass;put the new glass into
One night, a big storm came. [The wind howled, and the waves were as tall as trees.|The wind was strong, and the waves were high.] [Then|Just then], the great lamp by the sea went out.
{H} heard a [voice|shout] from the water. ["Help! We cannot see the land!"|"Help! Where is the light?"]
{He} ran to {F}, a {ft} {f}. "[Do you have|Can you give me] {what}?" asked {H}. "I must fix the lamp!" "[Yes|Of course]," said {F}. "[I will come with you.|Let us go, quick!]"
[They ran up the stairs.|They climbed all the steps to the top.] {H} {fix} the lamp, and soon it was bright again.
[The boat saw the light and came home.|The boat turned and came safe to the harbor.] ["You saved us!" said the sailors.|The sailors gave them a basket of fish.]
""",
"dry garden": """
@plants,gift = roses;a red rose | carrots;a big carrot | beans;a bowl of beans | apple trees;a sweet apple | pumpkins;a round pumpkin
{H} grew {plants} in the garden. [That summer|One summer], [the sun was hot|it did not rain], and [the ground was dry|the well was empty].
"[My poor {plants}|Oh, my {plants}]!" said {H}. "They [need water|are so thirsty]." {He} took a cup and walked to the river, but [the cup was too small|the way was long].
A {ft} {f} called {F} saw {him}. ["I have a big bucket," said {F}. "Let us carry it together."|"I have a cart," said {F}. "It can carry a lot of water."]
All day they carried water. [After a week|Soon], the {plants} [were big and green|stood tall] again.
{H} gave {F} {gift}. ["You helped me," {he} said.|"I could not do it alone," {he} said.]
""",
"up a tree": """
@tool,act = long ladder;climbed up | strong rope;climbed up | tall box;stood on it
One [day|morning], {H} heard a small [sound|cry]. {He} looked up and saw a [white|tiny|black] kitten in a tree.
"[Help|Please help me]!" [cried|said] the kitten. "I cannot get down."
"[Do not be afraid|Wait there]," said {H}. {He} tried to climb, but [the tree was too high|the branches were too thin].
[So {he}|{H}] ran to {F}, a {ft} {f}. "Do you have a {tool}?" asked {H}. "Yes, I have one," said {F}.
{F} held the {tool}, and {H} {act}. [{He} took the kitten in {his} arms.|Soon the kitten was safe on the ground.]
[The kitten said, "You are so brave."|The kitten was so happy that it danced.|They gave it a bowl of warm milk.]
""",
"leaky boat": """
@mend,how = a piece of wood;nailed the wood over the hole | some glue;closed the hole with glue | a bit of cloth;filled the hole with the cloth
@col = red | blue | green | yellow
{H} wanted to [see the other side of the lake|sail across the bay|sail to the green island]. [So {he} built a little boat.|So one day {he} made a boat from old wood.]
{He} painted it {col} and put it in the water. [But there was a hole in it!|But soon there was water in the boat.] "Oh no!" said {H}. {He} [pulled the boat back to the sand|sat down on the beach].
{F}, a {ft} {f}, was walking by. "[That is a fine boat|What a good boat]," said {F}, "but it has a hole." {Fhe} brought {mend} and {how}.
[This time the boat was dry.|This time no water came in.] "Come and sail with me!" said {H}.
[The wind filled the sail, and away they went.|They sailed all day in the sun.] [They saw birds and a big whale.|They found a beach full of shells.]
""",
"new friend": """
!norobot
@food = apples | bread and honey | warm soup | plum cake | nuts
[But {H} had no friends, and {he} was lonely.|But {he} was often alone, and that made {him} sad.] One day, a {ft} {f} called {F} came to live next door.
{H} wanted to say hello, but {he} was [afraid|too shy]. "What if {fhe} does not like me?" [{he} thought|thought {H}].
[Then it began to rain.|Then the wind grew cold.] {H} saw {F} [standing outside|sitting on the step]. "I lost my key," said {F}, "and I am [cold|wet]."
["Come in!" said {H}.|{H} opened the door. "Please come in," {he} said.] {He} gave {F} {food}, and they sat by the fire.
"[This is very good|You are so kind]," said {F}. "Will you be my friend?" ["Yes," said {H} with a smile.|{H} smiled. "I will be your friend," {he} said.]
""",
"birthday cake": """
!norobot
@item,bring = eggs;six eggs | flour;a bag of flour | sugar;a bowl of sugar | honey;a jar of honey | butter;a plate of butter
[Tomorrow was the birthday of {F}, a {ft} {f}.|{F}, a {ft} {f}, had a birthday.] {H} wanted to [bake|make] a cake for {fhim}.
But there was no {item}! {He} went to the [shop|market], but [it was closed|the door was shut].
A [goose|hen|goat] came along the road. "Why are you sad?" it asked. "I need {item} for a cake," said {H}.
"I have {item} at home," said the [bird|kind animal]. It came back with {bring}. ["Thank you!" said {H}. "You must come to the party."|"You are so kind!" said {H}.]
[{H} mixed and baked all evening.|{H} baked, and the whole house smelled sweet.] When {F} saw the cake, {fhe} [clapped|jumped for joy]. "[This is the best birthday of all|It is just what I wanted]!" said {F}.
""",
"cold bird": """
One [winter night|cold night], [the snow fell and fell|the snow was deep and white]. {H} heard a tap at the window. A tiny bird sat there.
"I am so cold," said the bird, "and my wing is hurt." ["Come in, come in!" said {H}.|{H} opened the window at once.] {He} made a bed for the bird in [a box|a basket|an old hat].
But the bird would not eat. So {H} asked {F}, a {ft} {f}. "[It needs seeds and rest|Give it seeds and warm water]," said {F}.
{H} did as {F} said, and every day the bird [grew stronger|sang a little more].
When spring came, the bird flew [up into the blue sky|out into the sun]. "I will come back [soon|every year]!" it sang. [{H} waved for a long time.|{H} was sad and happy at once.]
""",
"noise at night": """
@noise,cause = a loud bang;the wind, and it was playing with the door | a scratch at the door;a hedgehog, and it was looking for food | a long low sound;a frog, and it was singing to the moon | a tap on the roof;a branch, and it was moving in the wind
One [dark night|night], {H} heard {noise}. "[What was that|Who is there]?" [whispered {H}|said {H}]. There was no answer.
{H} [pulled the blanket over {his} head|hid under the bed]. ["Maybe it is a monster," {he} thought.|{He} was very afraid.]
Then {he} ran to {F}, a {ft} {f}. "There is a [monster|ghost] at my house!" said {H}. "Let us go and see," said {F}.
{F} took a lamp, and they walked [back|slowly] through the dark. [There was no monster.|They looked, and then they laughed.] It was only {cause}.
"[I feel silly now|I was afraid of nothing]," said {H}. "[Everyone is afraid sometimes|It is easy to be afraid in the dark]," said {F}.
""",
"feeling ill": """
!norobot
@plan = fair | beach | party | market
[One day|On Sunday], {H} wanted to go to the {plan}. But {he} woke up with a [cold|hot head]. "You must stay in bed," said the doctor.
{H} looked out of the window. All the others went to the {plan} without {him}. [{He} was very sad.|A tear ran down {his} face.]
Then there was a knock at the door. It was {F}, a {ft} {f}. "I brought you [soup|tea and honey|a book]," said {F}.
"But the {plan} is today!" said {H}. ["I want to be with you," said {F}.|"It is no fun without you," said {F}.]
{F} [told a funny story|sang a funny song], and {H} laughed so much that {he} forgot to be sad. [The next week, {H} was well again.|After three days, {H} felt well.]
""",
"the race": """
One day, there was a race [around the lake|up the hill|through the forest]. The prize was a [gold cup|silver bell|big cake]. "I want to win," said {H}.
[The sun was bright.|Then the big day came.] "One, two, three, go!" said the judge. {H} ran like the wind, and soon {he} was first.
Then {he} heard a cry. {F}, a {ft} {f}, was [lying on the path|sitting by the road]. "[My foot hurts|I fell on a stone]," said {F}.
[{H} wanted to win, but {F} needed help.|{H} did not want to leave {F} there.] "[Lean on me|Hold my hand]," {he} said. [Slowly|Step by step] they walked to the end.
They were last, but everyone [cheered|stood up and clapped]. "{H} [has a good heart|was the kindest of all]," said the judge.
""",
"broken thing": """
@thing,mend = blue cup;glued the cup | big window;put in new glass | clock;put in a new spring | flower pot;made a new pot
One [afternoon|rainy day], {H} was playing with a ball in the house of {F}, a {ft} {f}. [The ball flew too far.|{He} threw the ball too high.] Crash! The {thing} was broken.
{F} did not see it. "[If I say nothing, nobody will know|I could run away]," thought {H}. But that did not feel right.
When {F} came in, {H} said, "I broke your {thing}. I am [so|very] sorry."
[{F} was quiet for a moment.|{F} looked at the floor.] Then {fhe} smiled. "[Thank you for telling me the truth|It is only a thing]," {fhe} said. "[That was brave|You are still my friend]."
They worked together and {mend}.
""",
"the star": """
One night, {H} saw a [bright|beautiful] star. "I want to [hold|touch] that star," {he} said.
{He} climbed [the highest hill|a tall tower] and [jumped|reached up], but the star was [too far away|still far away].
[An old owl|A sleepy owl] saw {him}. "Nobody can reach a star," said the owl. "Go and ask {F}, the {ft} {f}."
So {H} went to {F}. "Come with me to the [pond|lake]," said {F}. The water was [still|quiet and dark], and the star was in it, [small and bright|bright as a lamp].
{H} put {his} hand in the water. "[I can touch it|Now I have it]!" {he} [said|laughed]. [They sat there and counted the stars.|They sat by the water all night.]
""",
"lost in fog": """
@sound,who = a bell;ringing a bell | a song;singing a song | a drum;playing a drum | a horn;blowing a horn
One day, {H} went [into the forest to pick berries|over the hills to find flowers|along the beach to look for shells]. Then a thick fog came, and everything was white.
"[Which way is home|Where is the path]?" said {H}. {He} [turned left and turned right|walked in a circle]. [{He} was lost.|It was no good.]
{H} sat down [on a stone|under a tree] and [tried not to cry|waited]. [But then|After a while] {he} heard {sound}. {He} stood up and [walked to the sound|followed the sound].
At the end of the path was {F}, a {ft} {f}, {who}. "{H}!" cried {F}. "I [was looking for you|was so worried]."
"You [brought me home|showed me the way]," said {H}. They went inside and [drank hot tea|sat by the warm fire].
""",
"empty battery": """
!onlyrobot
One day, {H} felt very [slow|tired]. "My battery is [almost empty|low]," said {H}. "I need the sun." But the sky was [gray|full of clouds].
{F}, a {ft} {f}, [found {him} in the field|saw {him} in the rain]. "I will help you," said {F}.
{F} put {H} on a [cart|sled] and pulled {him} to the old mill.
At the mill there was a wheel that turned in the [wind|water]. {F} put a wire from the wheel to {H}. [Click! {His} light came back.|Slowly, {his} light came back.]
"[I can move again|I feel strong again]!" said {H}, and {he} [danced|laughed] for joy.
""",
"the seed": """
One day, {H} found a [small brown|strange] seed [on the road|in an old box]. {He} put it in [the ground|a pot] and gave it water.
[{He} waited one day, two days, three days.|Every day {he} looked at it.] Nothing happened. "[It is a bad seed|It will never grow]," said {H}.
"Wait," said {F}, a {ft} {f}. "[Good things take time|A seed is slow, but it is not asleep]."
So {H} [waited|gave it water again and sang to it]. The rain came, and then the sun. [Then there|One morning, there] was a small green leaf!
"[It is alive|Look, it is growing]!" cried {H}. It grew [into a tall plant with a yellow flower|until it was as tall as the house].
"[You were right|I am glad I waited]," {H} said to {F}.
""",
}


class Grammar:
    """Draws stories. Two grammars with the same seed write the same stories."""

    def __init__(self, seed):
        self.r = random.Random(seed)
        self.openings, self.habits, self.endings = (
            t.strip().split("\n") for t in (OPENINGS, HABITS, ENDINGS))
        self.plots = {}
        for name, text in PLOTS.items():
            lines = text.strip().split("\n")
            self.plots[name] = dict(
                norobot="!norobot" in lines, onlyrobot="!onlyrobot" in lines,
                picks=[l[1:].split(" = ") for l in lines if l[0] == "@"],
                steps=[l for l in lines if l[0] not in "@!"])

    def pick(self, text):
        return self.r.choice(text.split("|")).strip()

    def expand(self, text, v):
        while "[" in text:
            text = re.sub(r"\[([^\[\]]*)\]", lambda m: self.r.choice(m[1].split("|")), text)
        while "{" in text:
            text = re.sub(r"\{(\w+)\}", lambda m: v[m[1]], text)
        return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)

    def person(self, kinds, taken):
        kind = self.r.choice([k for k in kinds if k not in taken])
        girl = kind == "girl" or (kind != "boy" and self.r.random() < 0.5)
        name = self.r.choice([n for n in (GIRLS if girl else BOYS) if n not in taken])
        return kind, name, (("she", "her", "her") if girl else ("he", "him", "his"))

    def story(self):
        r = self.r
        k, H, (he, him, his) = self.person(PEOPLE, ())
        plot = self.plots[r.choice(FAVOURITES[k]) if r.random() < 0.5 else r.choice([
            name for name, p in self.plots.items() if not p["norobot" if k == "robot" else "onlyrobot"]])]
        f, F, (fhe, fhim, fhis) = self.person(FRIENDS, (k, H))
        keeper = k == "keeper"
        v = dict(H=H, k=k, kk="lighthouse keeper" if keeper else k, he=he, him=him, his=his,
                 He=he.title(), His=his.title(), F=F, f="lighthouse keeper" if f == "keeper" else f,
                 fhe=fhe, fhim=fhim, fhis=fhis, Fhe=fhe.title(), Fhis=fhis.title(),
                 t=self.pick(TRAITS), ft=self.pick(FRIEND_TRAITS),
                 home=self.pick(LIGHTHOUSES if keeper else HOMES))
        v["Home"] = v["home"][0].upper() + v["home"][1:]
        for names, values in plot["picks"]:
            v.update(zip(names.split(","), (x.strip() for x in r.choice(values.split(" | ")).split(";"))))
        parts = [r.choice(self.openings)]
        if r.random() < 0.25:
            parts.append(r.choice(self.habits))
        parts += plot["steps"] + [r.choice(self.endings)]
        return " ".join(self.expand(p, v) for p in parts)

    def stories(self, n):
        return [self.story() for _ in range(n)]


# ---------------------------------------------------------------------------------------------
# 2. The tokenizer
# ---------------------------------------------------------------------------------------------
def train_tokenizer(texts, vocab_size, path):
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    # Learn merges on words cut before each U+2581, so that no piece spans two words; also keep
    # punctuation to itself. The saved tokenizer needs neither rule: the merges already obey.
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("▁", "merged_with_next"),
        pre_tokenizers.Split(Regex('▁?"|[.,!?]'), "isolated")])
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size - 259, show_progress=False))
    learned = json.loads(tok.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    pieces += sorted(learned["vocab"], key=learned["vocab"].get)
    assert not any("▁" in p[1:] for p in pieces), "a merge crosses a word start"
    assert len(set(pieces)) == len(pieces) <= vocab_size
    space = {"Replace": {"pattern": {"String": "▁"}, "content": " "}}
    spec = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=i, content=pieces[i], single_word=False, lstrip=False, rstrip=False,
                              normalized=False, special=True) for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", **space["Replace"]}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
                  "ignore_merges": False, "vocab": {p: i for i, p in enumerate(pieces)},
                  "merges": learned["merges"]}}
    with open(path, "w", encoding="utf-8") as out:
        json.dump(spec, out, ensure_ascii=False, indent=1)
        out.write("\n")
    return Tokenizer.from_file(path)


# ---------------------------------------------------------------------------------------------
# 3. The model (names and arithmetic as in Hugging Face's LlamaForCausalLM)
# ---------------------------------------------------------------------------------------------
def build_model(c):
    import torch
    from torch import nn
    import torch.nn.functional as fn

    dim, heads, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    hd = dim // heads
    freq = 1.0 / c["rope_theta"] ** (torch.arange(0, hd, 2).float() / hd)
    angle = torch.outer(torch.arange(c["max_position_embeddings"]).float(), freq)
    cos, sin = (torch.cat((t, t), -1) for t in (angle.cos(), angle.sin()))

    def rope(x):  # half-split rotation
        a, b = x.chunk(2, -1)
        n = x.shape[-2]
        return x * cos[:n] + torch.cat((-b, a), -1) * sin[:n]

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return fn.rms_norm(x, (dim,), self.weight, c["rms_norm_eps"])

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.o_proj = (nn.Linear(dim, dim, bias=False) for _ in range(2))
            self.k_proj, self.v_proj = (nn.Linear(dim, kv * hd, bias=False) for _ in range(2))

        def forward(self, x):
            B, T, _ = x.shape
            q = rope(self.q_proj(x).view(B, T, heads, hd).transpose(1, 2))
            k = rope(self.k_proj(x).view(B, T, kv, hd).transpose(1, 2))
            v = self.v_proj(x).view(B, T, kv, hd).transpose(1, 2)
            k, v = (t.repeat_interleave(heads // kv, 1) for t in (k, v))
            y = fn.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.o_proj(y.transpose(1, 2).reshape(B, T, dim))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj, self.up_proj = (nn.Linear(dim, c["intermediate_size"], bias=False) for _ in range(2))
            self.down_proj = nn.Linear(c["intermediate_size"], dim, bias=False)

        def forward(self, x):
            return self.down_proj(fn.silu(self.gate_proj(x)) * self.up_proj(x))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn, self.mlp = Attention(), Mlp()
            self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()

        def forward(self, x):
            x = x + self.self_attn(self.input_layernorm(x))
            return x + self.mlp(self.post_attention_layernorm(x))

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed_tokens = nn.Embedding(c["vocab_size"], dim)
            self.layers = nn.ModuleList(Layer() for _ in range(c["num_hidden_layers"]))
            self.norm = Norm()

    class Llama(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Inner()
            for name, p in self.named_parameters():
                if p.dim() > 1:
                    deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                    nn.init.normal_(p, std=(0.02 if "embed" in name else 0.06) / (math.sqrt(2 * c["num_hidden_layers"]) if deep else 1))

        def forward(self, ids):
            x = self.model.embed_tokens(ids)
            for layer in self.model.layers:
                x = layer(x)
            return fn.linear(self.model.norm(x), self.model.embed_tokens.weight)

    return Llama()


def generate(model, ids, n, context, top_p=None, temperature=1.0, stop=True):
    """n new ids: greedy, or top-p sampled. A full forward over the context for each."""
    import torch
    ids, new = list(ids), []
    with torch.no_grad():
        while len(new) < n and len(ids) < context:
            logits = model(torch.tensor([ids]))[0, -1]
            if top_p is None:
                t = int(logits.argmax())
            else:
                p, order = torch.softmax(logits / temperature, -1).sort(descending=True)
                p[p.cumsum(-1) - p > top_p] = 0
                t = int(order[torch.multinomial(p, 1)])
            ids.append(t)
            new.append(t)
            if stop and t == 2:
                break
    return new


# ---------------------------------------------------------------------------------------------
# 4. All together
# ---------------------------------------------------------------------------------------------
PROMPTS = ["Once upon a time", "The robot", "One day, a little cat", "It was a cold morning."]


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny-stories"))
    a.add_argument("--seed", type=int, default=7)
    a.add_argument("--stories", type=int, default=60000, help="stories written for training")
    a.add_argument("--vocab", type=int, default=576)
    a.add_argument("--dim", type=int, default=96)
    a.add_argument("--layers", type=int, default=4)
    a.add_argument("--ffn", type=int, default=192)
    a.add_argument("--context", type=int, default=256)
    a.add_argument("--steps", type=int, default=5000)
    a.add_argument("--batch", type=int, default=8)
    a.add_argument("--lr", type=float, default=4e-3)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--compile", action="store_true", help="use torch.compile: a third faster, but needs a C++ compiler")
    a.add_argument("--init", metavar="DIR", help="go on from the weights and the tokenizer in DIR")
    a.add_argument("--name-weight", type=float, default=4.0,
                   help="how much a name counts in the loss for the first 70%% of the steps; keeping track of who "
                        "is who is the slowest thing to learn")
    a.add_argument("--print-stories", type=int, metavar="N", help="print N stories and stop")
    a = a.parse_args()

    if a.print_stories:
        print("\n\n".join(Grammar(a.seed).stories(a.print_stories)))
        return

    import numpy, safetensors, safetensors.torch, tokenizers, torch
    import torch.nn.functional as fn
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    os.makedirs(a.out, exist_ok=True)

    texts = Grammar(a.seed).stories(a.stories)
    seen = set(texts)
    held = [s for s in Grammar(a.seed + 1).stories(200) if s not in seen]
    words = set(re.findall(r"[a-z]+", " ".join(texts).lower()))
    if a.init:
        tok = tokenizers.Tokenizer.from_file(os.path.join(a.init, "tokenizer.json"))
        shutil.copyfile(os.path.join(a.init, "tokenizer.json"), os.path.join(a.out, "tokenizer.json"))
    else:
        tok = train_tokenizer(texts[:8000], a.vocab, os.path.join(a.out, "tokenizer.json"))
    encode = lambda batch: [e.ids + [2] for e in tok.encode_batch(batch)]
    assert all(tok.decode(i) == s for i, s in zip(encode(held), held)), "tokenizer does not round-trip"
    # A window is a story, <s> to </s>, followed by as much of the next one as fits.
    coded = [i for i in encode(texts) if len(i) <= a.context]
    coded_held = [i for i in encode(held) if len(i) <= a.context]
    starts, flat = [], []
    for ids in coded:
        starts.append(len(flat))
        flat += ids
    starts = [s for s in starts if s + a.context < len(flat)]
    flat = torch.tensor(flat)
    print(f"{len(coded)} of {a.stories} stories fit ({len(set(texts))} different), {len(words)} words, "
          f"{len(flat) / len(coded):.0f} tokens and {sum(map(len, texts)) / len(texts):.0f} characters a story", flush=True)

    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=a.dim,
        intermediate_size=a.ffn, num_hidden_layers=a.layers, num_attention_heads=8, num_key_value_heads=4,
        vocab_size=tok.get_vocab_size(), max_position_embeddings=a.context, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=True, attention_bias=False, mlp_bias=False, bos_token_id=1, eos_token_id=2,
        torch_dtype="float16")
    model = build_model(config)
    if a.init:
        old = safetensors.torch.load_file(os.path.join(a.init, "model.safetensors"))
        model.load_state_dict({n: p.float() for n, p in old.items()})
    names = [tok.token_to_id("▁" + n) for n in GIRLS + BOYS]
    assert None not in names, "a name is not one piece"
    weight = torch.ones(tok.get_vocab_size())
    weight[names] = a.name_weight
    params = sum(p.numel() for p in model.parameters())
    print(f"{params} parameters", flush=True)
    opt = torch.optim.AdamW(
        [dict(params=[p for p in model.parameters() if p.dim() > 1], weight_decay=0.05),
         dict(params=[p for p in model.parameters() if p.dim() == 1], weight_decay=0.0)],
        lr=a.lr, betas=(0.9, 0.98))

    def name_accuracy(n=16):  # of the names in held-out stories, how many the model would have written
        right = count = 0
        with torch.no_grad():
            for ids in coded_held[:n]:
                t = torch.tensor([ids])
                is_name = torch.isin(t[0, 1:], torch.tensor(names))
                right += (model(t[:, :-1])[0].argmax(-1) == t[0, 1:])[is_name].sum().item()
                count += is_name.sum().item()
        return right / count

    def held_loss(n=64):
        total = count = 0
        with torch.no_grad():
            for ids in coded_held[:n]:
                t = torch.tensor([ids])
                total += fn.cross_entropy(model(t[:, :-1])[0], t[0, 1:], reduction="sum").item()
                count += len(ids) - 1
        return total / count

    run = torch.compile(model) if a.compile else model
    order, at, began, mean = [], 0, time.time(), None
    for step in range(a.steps):
        if at + a.batch > len(order):
            order, at = torch.randperm(len(starts)).tolist(), 0
        batch = torch.stack([flat[starts[i]:starts[i] + a.context + 1] for i in order[at:at + a.batch]])
        at += a.batch
        lr = a.lr * min((step + 1) / 100, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / a.steps)))
        for g in opt.param_groups:
            g["lr"] = lr
        target = batch[:, 1:].flatten()
        each = fn.cross_entropy(run(batch[:, :-1]).flatten(0, 1), target, reduction="none")
        w = weight[target] if step < 0.7 * a.steps else torch.ones(len(target))
        loss = (each * w).sum() / w.sum()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        now = each.mean().item()
        mean = now if mean is None else 0.98 * mean + 0.02 * now
        if (step + 1) % 200 == 0 or step + 1 == a.steps:
            print(f"step {step + 1}: loss {mean:.4f}, held out {held_loss(16):.4f}, names right {name_accuracy():.2f}, {time.time() - began:.0f} s", flush=True)
    final = mean

    # From here on the weights are the float16 ones, computed with in float32.
    half = {n: p.detach().to(torch.float16).contiguous() for n, p in model.named_parameters()}
    safetensors.torch.save_file(half, os.path.join(a.out, "model.safetensors"), metadata={"format": "pt"})
    model.load_state_dict({n: p.float() for n, p in half.items()})
    with open(os.path.join(a.out, "config.json"), "w") as out:
        json.dump(config, out, indent=2)
        out.write("\n")
    checks = []
    for text in PROMPTS:
        ids = tok.encode(text).ids
        new = generate(model, ids, 48, a.context, stop=False)
        checks.append(dict(prompt=text, prompt_ids=ids, greedy_ids=new,
                           greedy_text=tok.decode(ids + new)))
    t = torch.tensor([coded_held[0]])
    with torch.no_grad():
        nll = fn.cross_entropy(model(t[:, :-1])[0], t[0, 1:]).item()
    record = dict(
        about="float16 weights, float32 arithmetic, full forward; perplexity is exp of the mean "
              "negative log likelihood of ids[1:]; decoding skips the special tokens",
        made_with=dict(torch=torch.__version__, tokenizers=tokenizers.__version__,
                       safetensors=safetensors.__version__, numpy=numpy.__version__,
                       arguments={k: v for k, v in vars(a).items() if k not in ("out", "print_stories")}),
        parameters=params, train_loss=round(final, 4), held_out_loss=round(held_loss(), 4),
        generation=checks,
        perplexity=dict(text=tok.decode(coded_held[0]), ids=coded_held[0], mean_nll=nll, perplexity=math.exp(nll)))
    with open(os.path.join(a.out, "generation_check.json"), "w") as out:
        json.dump(record, out, indent=1)
        out.write("\n")
    print(f"train loss {final:.4f}, held out {record['held_out_loss']}, {time.time() - began:.0f} s of training")
    for text in PROMPTS:
        ids = tok.encode(text).ids
        print("\n[greedy]", tok.decode(ids + generate(model, ids, a.context, a.context)))
        print("[top-p 0.9]", tok.decode(ids + generate(model, ids, a.context, a.context, top_p=0.9)))


if __name__ == "__main__":
    main()
