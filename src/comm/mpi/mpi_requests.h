// MPI behind three words: which error, what travels, and when it has arrived.
#pragma once

#define OMPI_SKIP_MPICXX  // the C interface only
#include <mpi.h>

#include <cstdint>
#include <span>
#include <vector>

namespace temper::comm {

// Throws kPeer with MPI's own words.
void check_mpi(int result, const char* what);

enum class Tag : int { kIdentity = 1, kData, kMessageHead, kMessage, kAsk, kAnswer, kVerdict };

// Bytes to or from a rank of a communicator.
struct Parcel {
  int64_t peer;
  char* data;
  int64_t num_bytes;
};

// Operations under way. Those that have not ended when this dies are given up.
class Requests {
 public:
  Requests() = default;
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;
  ~Requests();

  void receive(MPI_Comm comm, const Parcel& parcel, Tag tag);
  void send(MPI_Comm comm, const Parcel& parcel, Tag tag);
  bool empty() const { return pending_.empty(); }
  // Drops what has ended; whether nothing is left.
  bool done();
  // The peer of the oldest operation that has not ended.
  int64_t awaited() const { return pending_.front().peer; }

 private:
  struct Pending {
    MPI_Request request;
    int64_t peer;
  };
  std::vector<Pending> pending_;
};

}  // namespace temper::comm
