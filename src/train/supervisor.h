// What stands around the loop: adding the place to an error, and finishing in order when somebody asks for it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace temper::train {

// Runs body; an Error that leaves it gets the step and the place in front of its message. One of the three places where
// errors are caught (the others are app/main.cc and app/as_rank.cc).
void with_place(int64_t step, const std::function<std::string()>& place, const std::function<void()>& body);

// While it lives, the first SIGINT, SIGTERM or warning signal asks the loop to finish its step, save and return; a
// second signal of any of them ends the process at once. Ranks that are threads hear of the same signal, until the last
// of their requests, all with one warning signal, is gone.
class StopRequest {
 public:
  // warning_signal: "USR1", "USR2", "HUP" or "none": what a batch system sends some time before it kills.
  explicit StopRequest(std::string_view warning_signal);
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;
  ~StopRequest();

  // "SIGTERM"; empty as long as nobody asked.
  std::string signal_name() const;

 private:
  int warning_signal_;
};

// Seconds until the end of the batch job that this process runs in, by Slurm's SLURM_JOB_END_TIME (seconds since the
// epoch of Unix); infinite where there is none.
double seconds_to_job_end();

}  // namespace temper::train
