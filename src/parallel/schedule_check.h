// Whether the lists of a pipeline's stages work together, and how long they take: without a device, from the lists
// alone.
//
// What lists keep to, and executors rely on:
//   - Every chunk runs F, then B, then W (or B and W at once) of every micro-batch, once each, in ascending order.
//   - Messages and L stand directly beside what makes or needs them: with_messages(). B of the last part comes directly
//     after L.
//   - Between two neighbours, forward and backward messages are two channels (in comm: a group each). In a channel they
//     are received in the order in which they were sent.
//   - The reduction comes last, once.
#pragma once

#include <string>

#include "parallel/schedule.h"

namespace temper::parallel {

struct Findings {
  // The first thing that is wrong, with stage and instruction; or who waits for whom if the lists would stop for ever
  // though no send waits. Empty: they run.
  std::string fault;
  // Who waits for whom if a send would wait for its receive; empty: they would run even so.
  std::string rendezvous_fault;
};
Findings check_schedule(const PipelineLists& lists);

}  // namespace temper::parallel
