// What ranks tell one another in words. All are collective; ranks null: this rank alone.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/comm.h"

namespace temper::parallel {

// The text of rank `from`, on every rank.
std::string tell_all(comm::Comm* ranks, const std::string& text, int64_t from = 0);

// "rank 3: " and the problem of the first rank that has one, on every rank; of one rank alone, its problem. Empty where
// nobody has any.
std::string first_problem(comm::Comm* ranks, const std::string& problem);

// Every rank's text, by rank, on the first one; nothing elsewhere.
std::vector<std::string> gather_texts(comm::Comm* ranks, const std::string& text);

// Each rank's work, after which all know of all; where that of any fails, every rank throws: kIo with the words of the
// first. Of one rank alone, just the work.
void together(comm::Comm* ranks, const std::function<void()>& work);

}  // namespace temper::parallel
