// Layouts of ranks and what they train, drawn at random: for a test and for the program that repeats it over processes.
#pragma once

#include "train/layouts.h"

namespace temper::train::testing {

struct RandomCase {
  parallel::Layout layout;
  TrainedCase trained;
  std::string description;  // for who has to repeat it
};

// Case number `number` of a world of that many ranks: a valid layout; layers of all kinds in other orders;
// micro-batches of unequal lengths, packings and loss masks, fewer or more than ranks, some without a trained token;
// losses, recompute policies, frozen parameters and clipping in all combinations; a budget of expert rows that needs
// several rounds; experts dealt anew and a step given up between two.
RandomCase random_case(uint64_t number, int64_t world_size);

// Trains it in the world and on the first rank alone, which returns what is wrong, or nothing.
std::string check_case(comm::Comm& world, const RandomCase& c);

}  // namespace temper::train::testing
