"""Writes tiny cross-encoders with random weights, and what transformers makes of some pairs of texts.

    python3 tests/rerankers/make.py

Needs torch, transformers and tokenizers. The folders beside this file are what it wrote; tests/tests/rerank.rs
compares with them.
"""

import json
import pathlib

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers import BertConfig, ModernBertConfig, XLMRobertaConfig

HERE = pathlib.Path(__file__).parent
TEXTS = ["who wrote the book?", "the book was written by a friend of hers.", "it rains today", "who is it?",
         "a book is written by those who write"]
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[0], TEXTS[2]), (TEXTS[0], ""), ("who?", " ".join(TEXTS)), (" ".join(TEXTS), TEXTS[0])]
SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 12}


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special))
    ids = [(token, tokenizer.token_to_id(token)) for token in special[2:]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids)
    return tokenizer, special[0]


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=48, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>")), add_prefix_space=False)
    return tokenizer, special[1]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=50, special_tokens=special))
    ids = [(token, tokenizer.token_to_id(token)) for token in special[1:]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0", special_tokens=ids)
    return tokenizer, special[0]


def logits(model, tokenizer, segments, most):
    """Of each pair alone, cut as sentence-transformers' CrossEncoder cuts it."""
    for query, document in PAIRS:
        inputs = tokenizer([query], [document], truncation="longest_first", max_length=most, return_tensors="pt",
                           return_token_type_ids=segments)
        yield inputs, model(**inputs).logits[0].tolist()


def write(name, tokenizer, config, segments=False, most=40):
    tokenizer, padding = tokenizer
    folder = HERE / name
    torch.manual_seed(len(name))
    config.pad_token_id = tokenizer.token_to_id(padding)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for of, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in of.lower() else 0.0, 0.5)
        model.save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=padding)
        json.dump({"model_max_length": most}, (folder / "tokenizer_config.json").open("w"))
        reference = {"pairs": [
            {"query": query, "document": document, "ids": inputs["input_ids"][0].tolist(),
             "segments": inputs["token_type_ids"][0].tolist() if segments else None, "logits": scores,
             "sigmoid": torch.tensor(scores).sigmoid().tolist()}
            for (query, document), (inputs, scores) in zip(PAIRS, logits(model, fast, segments, most))]}
        if name == "modernbert":
            model.config.classifier_pooling = "cls"
            reference["cls"] = [scores for _, scores in logits(model, fast, segments, most)]
        rows = ",\n ".join(json.dumps(pair) for pair in reference.pop("pairs"))
        rest = "".join(f",\n\"{name}\": {json.dumps(value)}" for name, value in reference.items())
        (folder / "ref.json").write_text(f"{{\"pairs\": [\n {rows}]{rest}}}\n")
        (folder / "model.safetensors").chmod(0o644)


def main():
    words, pieces, units = word_piece(), unigram(), byte_level()
    write("bert", words, BertConfig(
        vocab_size=words[0].get_vocab_size(), max_position_embeddings=40, num_labels=1,
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"}, **SIZES), segments=True)
    write("xlm_roberta", pieces, XLMRobertaConfig(
        vocab_size=pieces[0].get_vocab_size(), max_position_embeddings=42, type_vocab_size=1, num_labels=1, **SIZES))
    write("modernbert", units, ModernBertConfig(
        vocab_size=units[0].get_vocab_size(), max_position_embeddings=64, num_labels=3, local_attention=8,
        global_attn_every_n_layers=2, classifier_pooling="mean", classifier_bias=True,
        bos_token_id=None, eos_token_id=None, cls_token_id=1, sep_token_id=2, **SIZES), most=30)


if __name__ == "__main__":
    main()
