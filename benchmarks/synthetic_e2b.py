"""Random Q4_0 weights at the true text shapes of Gemma 4 E2B or of its MTP drafter, as GGUF: for pass costs only.

usage: python benchmarks/synthetic_e2b.py target|drafter|dense-drafter TOKENIZER_SOURCE.gguf OUT.gguf
The target takes 2.6 GB and half a minute. The tokenizer tables are copied from TOKENIZER_SOURCE (the demo file will
do). The drafter has the published head of 2048 clusters; llama.cpp loads the target and the dense drafter.
"""

import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType, GGUFWriter

kind, tokenizer_source, out = sys.argv[1:4]
VOCAB, HIDDEN, PLE, WINDOW = 262144, 1536, 256, 512
rng = np.random.default_rng(0)

if kind == "target":
    arch, hidden, layers, heads, shared = "gemma4", HIDDEN, 35, 8, 20
    sliding = [(i + 1) % 5 != 0 for i in range(layers)]
    width = [6144] * 15 + [12288] * 20
else:
    arch, hidden, layers, heads, shared = "gemma4-assistant", 256, 4, 4, 4
    sliding = [True, True, True, False]
    width = [2048] * 4
w = GGUFWriter(out, arch)


def quantized(name, rows, columns):
    """(rows, columns) weights in Q4_0 blocks: one float16 scale, 16 bytes of nibbles; standard deviation near 0.02."""
    blocks = rng.integers(0, 256, size=(rows, columns // 32, 18), dtype=np.uint8)
    scale = (rng.random((rows, columns // 32), np.float32) * 0.5 + 0.75) * np.float32(0.02 / 4.64)
    blocks[..., :2] = scale.astype(np.float16)[..., None].view(np.uint8)
    w.add_tensor(name + ".weight", blocks.reshape(rows, -1), raw_dtype=Type.Q4_0)


def ones(name, n):
    w.add_tensor(name + ".weight", np.ones(n, np.float32))


for key, field in GGUFReader(tokenizer_source).fields.items():
    if key.startswith("tokenizer."):
        if field.types[0] == GGUFValueType.ARRAY:
            w.add_array(key, field.contents())
        else:
            w.add_key_value(key, field.contents(), field.types[0])
w.add_name(f"synthetic {arch}")
w.add_file_type(2)
w.add_context_length(131072)
w.add_embedding_length(hidden)
w.add_block_count(layers)
w.add_feed_forward_length(width)
w.add_head_count(heads)
w.add_head_count_kv(1)
w.add_layer_norm_rms_eps(1e-6)
w.add_key_length(512)
w.add_value_length(512)
w.add_uint32(f"{arch}.attention.key_length_swa", 256)
w.add_uint32(f"{arch}.attention.value_length_swa", 256)
w.add_sliding_window(WINDOW)
w.add_array(f"{arch}.attention.sliding_window_pattern", sliding)
w.add_uint32(f"{arch}.attention.shared_kv_layers", shared)
w.add_uint32(f"{arch}.embedding_length_per_layer_input", PLE if kind == "target" else 0)
w.add_rope_freq_base(1e6)
w.add_float32(f"{arch}.rope.freq_base_swa", 1e4)
w.add_rope_dimension_count(512)
w.add_uint32(f"{arch}.rope.dimension_count_swa", 256)

quantized("token_embd", VOCAB, hidden)
ones("output_norm", hidden)
w.add_tensor("rope_freqs.weight", np.array([1.0] * 64 + [1e30] * 192, np.float32))  # a quarter of the dims turns
if kind == "target":
    w.add_final_logit_softcapping(30.0)
    quantized("per_layer_token_embd", VOCAB, layers * PLE)
    quantized("per_layer_model_proj", layers * PLE, hidden)
    ones("per_layer_proj_norm", PLE)
else:
    w.add_uint32(f"{arch}.embedding_length_out", HIDDEN)
    w.add_uint32(f"{arch}.nextn_predict_layers", layers)
    quantized("nextn.pre_projection", hidden, 2 * HIDDEN)
    quantized("nextn.post_projection", HIDDEN, hidden)
if kind == "drafter":
    w.add_uint32(f"{arch}.centroid_top_k", 32)
    quantized("masked_embd_centroids", 2048, hidden)
    w.add_tensor("masked_embd_ordering", rng.permutation(VOCAB).astype(np.int32))

for i in range(layers):
    b, head_dim = f"blk.{i}.", 256 if sliding[i] else 512
    for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
        ones(b + name, hidden)
    ones(b + "layer_output_scale", 1)
    ones(b + "attn_q_norm", head_dim)
    quantized(b + "attn_q", heads * head_dim, hidden)
    quantized(b + "attn_output", hidden, heads * head_dim)
    if kind == "target" and i < layers - shared:
        ones(b + "attn_k_norm", head_dim)
        quantized(b + "attn_k", head_dim, hidden)
        quantized(b + "attn_v", head_dim, hidden)
    quantized(b + "ffn_gate", width[i], hidden)
    quantized(b + "ffn_up", width[i], hidden)
    quantized(b + "ffn_down", hidden, width[i])
    if kind == "target":
        ones(b + "post_norm", hidden)
        quantized(b + "inp_gate", PLE, hidden)
        quantized(b + "proj", hidden, PLE)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
