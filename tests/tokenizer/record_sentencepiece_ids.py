"""Writes sentencepiece_ids.json: what SentencePiece 0.2.3, Google's own tokenizer, makes of the texts with the demo's
vocabulary and the settings of Gemma's tokenizer.model.

usage: python tests/tokenizer/record_sentencepiece_ids.py    (with outrider[test], sentencepiece and protobuf installed)
"""

import json
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from texts import TEXTS

from outrider.checkpoints import open_checkpoint
from outrider.tokenizer.token_kinds import UNKNOWN, USER_DEFINED

tables = open_checkpoint("demo").tokenizer
model = sentencepiece_model_pb2.ModelProto()
trainer, normalizer = model.trainer_spec, model.normalizer_spec
trainer.model_type, trainer.byte_fallback, trainer.vocab_size = trainer.BPE, True, len(tables.tokens)
trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = 0, 1, 2, 3
trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = tables.tokens[:4]
normalizer.name, normalizer.escape_whitespaces = "identity", True
normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = False
for token, (text, score, kind) in enumerate(
    zip(tables.tokens, tables.scores.tolist(), tables.token_types.tolist(), strict=True)
):
    # The conversion to GGUF wrote the spaces of user-defined tokens as spaces.
    piece = text.replace(" ", "▁") if kind == USER_DEFINED else text
    model.pieces.add(piece=piece, score=score, type=UNKNOWN if token == trainer.unk_id else kind)
processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
lines = ",\n".join(f"  {json.dumps(text)}: {json.dumps(processor.EncodeAsIds(text))}" for text in TEXTS)
(Path(__file__).parent / "sentencepiece_ids.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
