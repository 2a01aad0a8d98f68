// One run of a program: locks, validation and scratch memory before it, the reduction of the threads' argmaxes after it.
#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>

#include "program/executor.h"
#include "program/executor_adapters.h"
#include "program/executor_experts.h"

namespace outrider {
namespace {

// Locks the caches of a pass: during it nothing else may read or change them.
class CacheLocks {
 public:
  explicit CacheLocks(const std::vector<KvCache*>& caches) {
    for (KvCache* cache : caches) locks_.push_back(std::make_unique<Exclusive>(cache->in_use(), "the key-value cache"));
  }

 private:
  std::vector<std::unique_ptr<Exclusive>> locks_;
};

}  // namespace

std::vector<Best> Program::run(const RowBatch& batch, float* logits) {
  const Exclusive lock = exclusive();
  if (!batch.embedding.empty() && batch.embedding_width != embedding_width_)
    throw std::invalid_argument("embeddings must have width " + std::to_string(embedding_width_) + ", not " +
                                std::to_string(batch.embedding_width));
  const CacheLocks locks(batch.caches);
  pass_.prepare(batch, max_rows_, vocabulary_, cross_attention_, adapters_);
  for (const RowRange& r : pass_.ranges(false))
    if (r.cache->pages().layers() != static_cast<int>(kv_.size()) || r.cache->pages().format() != kv_format_)
      throw std::invalid_argument("a sequence's cache does not have the layers or the format of this program");
  if (!work_stealing_) work_stealing_ = std::make_unique<WorkStealing>(pool_->size(), ops_.size());
  if (pass_.rows(false) >= active_kernels().least_panel_rows)
    for (Buffer& b : buffers_) b.make_panels();
  work_stealing_->begin();
  for (std::vector<Best>& part : thread_best_)
    std::fill(part.begin(), part.end(), Best{-std::numeric_limits<float>::infinity(), 0});
  pool_->run([&](int thread) { Executor(*this, thread, logits).run_all(); });
  const size_t outputs = pass_.outputs().size();
  std::vector<Best> best(outputs, Best{-std::numeric_limits<float>::infinity(), 0});
  for (const std::vector<Best>& part : thread_best_)
    for (size_t i = 0; i < outputs; ++i)
      if (part[i].logit > best[i].logit || (part[i].logit == best[i].logit && part[i].token < best[i].token)) best[i] = part[i];
  return best;
}

}  // namespace outrider
