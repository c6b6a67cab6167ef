// The device half of the seam: what a backend must offer besides its ops. Plain function pointers, so that a backend is
// a folder that fills in a table and no vendor type leaks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensor/book.h"
#include "tensor/view.h"

namespace temper::backend {

struct DeviceInfo {
  std::string name;          // "cpu: AMD EPYC, 2 threads, avx512-bf16"
  int64_t memory_bytes = 0;  // free for us at start; 0 = unknown
  int num_threads = 1;       // CPU worker threads, or streaming processors
};

// The denominator of MFU.
struct Peak {
  double flops_per_second = 0;  // of products with operands of the asked dtype; 0 = unknown
  std::string name;             // what it is and how it is known: "0.98 TFLOP/s (bf16, measured)"
};

// An ordered queue of work on a device; what else it has belongs to the backend, which derives its own from this.
struct Stream {
  // Of a stream that has a thread of this host for its work: appends to it. Null: work of the host on this stream is
  // done by whoever calls.
  void (*enqueue)(Stream* stream, std::function<void()> work) = nullptr;
};

struct Event;  // a place in a stream that the work before it comes to; its contents belong to the backend

struct DeviceTable {
  DeviceInfo (*info)() = nullptr;
  // 64-byte aligned memory, zero-filled. Throws kOutOfMemory.
  void* (*alloc)(int64_t num_bytes) = nullptr;
  void (*free)(void* base, int64_t num_bytes) = nullptr;
  Stream* (*stream_create)() = nullptr;
  void (*stream_destroy)(Stream* stream) = nullptr;
  void (*stream_sync)(Stream* stream) = nullptr;
  // A stream for collectives, of which the work runs beside that of others. It takes no ops. What it throws is thrown
  // again by whoever waits for it, now and later. destroy waits for what is under way.
  Stream* (*comm_stream_create)() = nullptr;
  Event* (*event_create)() = nullptr;  // as if it had happened
  void (*event_destroy)(Event* event) = nullptr;
  // The event happens, once more, when the stream has passed all that was enqueued before.
  void (*event_record)(Stream* stream, Event* event) = nullptr;
  // What is enqueued later begins after the event. Where the work of a stream is done by the caller, he waits.
  void (*event_wait)(Stream* stream, Event* event) = nullptr;
  bool (*event_query)(Event* event) = nullptr;  // whether it has happened
  // Copies between host memory and a contiguous View; ordered after the stream's earlier work, done on return.
  void (*copy_to_device)(Stream* stream, View to, const void* from) = nullptr;
  void (*copy_to_host)(Stream* stream, void* to, View from) = nullptr;
  // Peak for an activation dtype, f32 or bf16: measured at the call (under a second) or from the maker's data sheet.
  Peak (*peak)(DType act) = nullptr;
};

// One block of device memory per kind of tensor, sized by a Book and bound to its Views.
class Arena {
 public:
  // Allocates all regions of the book and binds its Views.
  Arena(const DeviceTable& device, Book& book);
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();
  int64_t allocated_bytes() const { return allocated_bytes_; }

 private:
  struct Block {
    void* base;
    int64_t num_bytes;
  };
  const DeviceTable& device_;
  std::vector<Block> blocks_;
  int64_t allocated_bytes_ = 0;
};

}  // namespace temper::backend
