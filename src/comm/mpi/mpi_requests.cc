#include "comm/mpi/mpi_requests.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace temper::comm {
namespace {

constexpr int64_t kLargestMessage = int64_t{1} << 26;  // MPI counts in int

}  // namespace

void check_mpi(int result, const char* what) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(result, text, &length);
  fail(ErrorCode::kPeer, "{}: MPI says: {}", what, std::string(text, static_cast<size_t>(length)));
}

Requests::~Requests() {
  // Only after a failure; the process is about to end.
  for (Pending& p : pending_) {
    MPI_Cancel(&p.request);
    MPI_Request_free(&p.request);
  }
}

void Requests::receive(MPI_Comm comm, const Parcel& parcel, Tag tag) {
  for (int64_t at = 0; at < parcel.num_bytes; at += kLargestMessage) {
    Pending& p = pending_.emplace_back(Pending{MPI_REQUEST_NULL, parcel.peer});
    const auto count = static_cast<int>(std::min(kLargestMessage, parcel.num_bytes - at));
    check_mpi(MPI_Irecv(parcel.data + at, count, MPI_BYTE, static_cast<int>(parcel.peer), static_cast<int>(tag), comm,
                        &p.request),
              "receive");
  }
}

void Requests::send(MPI_Comm comm, const Parcel& parcel, Tag tag) {
  for (int64_t at = 0; at < parcel.num_bytes; at += kLargestMessage) {
    Pending& p = pending_.emplace_back(Pending{MPI_REQUEST_NULL, parcel.peer});
    const auto count = static_cast<int>(std::min(kLargestMessage, parcel.num_bytes - at));
    check_mpi(MPI_Isend(parcel.data + at, count, MPI_BYTE, static_cast<int>(parcel.peer), static_cast<int>(tag), comm,
                        &p.request),
              "send");
  }
}

bool Requests::done() {
  std::erase_if(pending_, [](Pending& p) {
    int ended = 0;
    check_mpi(MPI_Test(&p.request, &ended, MPI_STATUS_IGNORE), "test");
    return ended != 0;
  });
  return pending_.empty();
}

}  // namespace temper::comm
