"""Text to token ids and back, whole or as a stream."""

from outrider.tokenizer.stream import StreamDecoder
from outrider.tokenizer.tokenizer import Tokenizer, open_tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "open_tokenizer"]
