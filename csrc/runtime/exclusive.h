// One thread at a time: objects without locks of their own refuse a second one instead of corrupting memory.
#pragma once
#include <atomic>
#include <stdexcept>
#include <string>

namespace outrider {

class Exclusive {
 public:
  // Holds the object until the end of the scope. Throws std::runtime_error, and changes nothing, if another call does.
  Exclusive(std::atomic_flag& held, const char* what) : held_(held) {
    if (held_.test_and_set(std::memory_order_acquire))
      throw std::runtime_error(std::string(what) + " is in use by another thread: calls that share a model must take turns");
  }
  ~Exclusive() { held_.clear(std::memory_order_release); }
  Exclusive(const Exclusive&) = delete;
  Exclusive& operator=(const Exclusive&) = delete;

 private:
  std::atomic_flag& held_;
};

}  // namespace outrider
