// What stands around the loop: adding the place to an error, and finishing in order when the user interrupts.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace temper::train {

// Runs body; an Error that leaves it gets the step and the place in front of its message. One of the two places where
// errors are caught (the other is app/main.cc).
void with_place(int64_t step, const std::function<std::string()>& place, const std::function<void()>& body);

// While it lives, the first SIGINT or SIGTERM asks the loop to finish its step, save and return; a second one ends the
// process as usual. One at a time.
class StopRequest {
 public:
  StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;
  ~StopRequest();
  bool requested() const;
};

}  // namespace temper::train
