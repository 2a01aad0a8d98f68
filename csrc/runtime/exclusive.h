// A guard for objects that have no locks of their own: a second thread gets an error instead of corrupting memory.
#pragma once
#include <atomic>
#include <stdexcept>
#include <string>

namespace outrider {

class Exclusive {
 public:
  // Marks the object as in use until the end of the scope. Does not wait: throws std::runtime_error, and changes nothing, if
  // the object is in use already.
  Exclusive(std::atomic_flag& in_use, const char* what) : in_use_(in_use) {
    if (in_use_.test_and_set(std::memory_order_acquire))
      throw std::runtime_error(std::string(what) + " is in use by another thread: threads that share a model must not call it " +
                               "at the same time");
  }
  ~Exclusive() { in_use_.clear(std::memory_order_release); }
  Exclusive(const Exclusive&) = delete;
  Exclusive& operator=(const Exclusive&) = delete;

 private:
  std::atomic_flag& in_use_;
};

}  // namespace outrider
