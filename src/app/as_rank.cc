#include "app/as_rank.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/lines.h"

namespace temper::app {
namespace {

// What the ranks find alike, a bad key or a missing file, they find within this time of one another. And launchers end
// with the code of the first rank that ends: it should be the one that failed by itself, not one that heard of it.
constexpr auto kMoment = std::chrono::milliseconds(300);

// Why the world has failed: what the first rank to fail has told.
std::string verdict_of(comm::Comm& world) {
  try {
    world.barrier(nullptr, {"end after a failure"});  // throws: this rank has told that it failed
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Whether one rank found it and has told the others: "rank 3 failed: ...".
bool is_told_by_one(std::string_view verdict) {
  constexpr std::string_view kRank = "rank ", kFailed = " failed: ";
  if (!verdict.starts_with(kRank)) return false;
  verdict.remove_prefix(kRank.size());
  verdict.remove_prefix(std::min(verdict.size(), verdict.find_first_not_of("0123456789")));
  return verdict.starts_with(kFailed);
}

// Whether another rank prints it: what the first has found as well, or what one has found and the others only heard.
// That is repeated by the first, whose log may be the only one that is looked at.
bool is_left_to_another(comm::Comm& world, const Error& error) {
  const std::string verdict = verdict_of(world);
  if (world.rank() == 0) return false;
  return verdict == fmt::format("rank 0 failed: {}", error.what()) ||
         (error.code() == ErrorCode::kPeer && is_told_by_one(error.what()));
}

// In one piece, so that lines of several ranks do not mix.
void print(int64_t rank, const Error& error) {
  const std::string message = fmt::format("temper: {}: {}", error_code_name(error.code()), error.what());
  std::string text;
  for_each_line(message, [&](std::string_view line, int64_t) {
    text += rank == 0 ? fmt::format("{}\n", line) : fmt::format("rank {}: {}\n", rank, line);
  });
  std::fputs(text.c_str(), stderr);
}

}  // namespace

void as_rank(comm::World& world, const std::function<void()>& body) {
  comm::Comm& comm = world.comm();
  if (comm.size() == 1) return body();
  try {
    body();
  } catch (const Error& error) {
    if (comm.rank() > 0 || error.code() == ErrorCode::kPeer) std::this_thread::sleep_for(kMoment);
    comm.abort(error.what());
    if (!is_left_to_another(comm, error)) print(comm.rank(), error);
    throw CLI::RuntimeError(exit_code(error.code()));
  }
}

}  // namespace temper::app
