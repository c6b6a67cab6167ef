// One team of threads for the whole process. Workers spin briefly between calls and then sleep, so that a fork costs
// microseconds while work is flowing and nothing when it is not.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace temper {

// A reference to something callable as body(begin, end, part), valid for the call it is passed to. Unlike std::function
// it never allocates.
class RangeBody {
 public:
  template <class Body>
  requires(!std::is_same_v<std::remove_cvref_t<Body>, RangeBody>)
      RangeBody(Body&& body)  // NOLINT(bugprone-forwarding-reference-overload): the constraint leaves copies alone
      : body_(const_cast<void*>(static_cast<const void*>(std::addressof(body)))),
        call_([](void* target, int64_t begin, int64_t end, int part) {
          (*static_cast<std::remove_reference_t<Body>*>(target))(begin, end, part);
        }) {}
  void operator()(int64_t begin, int64_t end, int part) const { call_(body_, begin, end, part); }

 private:
  void* body_;
  void (*call_)(void*, int64_t, int64_t, int);
};

// What TEMPER_NUM_THREADS asks for, 1 to 1024; 0 where it is not set. Throws kInvalidArgument for anything else.
int num_threads_asked_for();

// Number of threads that parallel_for uses; TEMPER_NUM_THREADS or the cores this process may run on.
int num_threads();

// Sets the team's size; for tests and command-line options, between calls only.
void set_num_threads(int count);

// Calls body(begin, end, part) on contiguous parts of [0, count), one for each thread. The partition depends only on
// count, grain and the number of threads, so sums over it are reproducible; which thread takes which part does not
// matter and is not fixed. Ranges shorter than grain stay on one thread. The first exception thrown by body is rethrown
// here. A call from inside a body runs on the calling thread.
void parallel_for(int64_t count, int64_t grain, RangeBody body);

}  // namespace temper
