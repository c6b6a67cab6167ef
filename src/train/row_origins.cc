#include "train/row_origins.h"

#include <algorithm>
#include <cctype>

#include "train/host_copy.h"

namespace temper::train {
namespace {

using backend::OpCall;
using backend::Operand;
using backend::OpId;
using backend::Role;

const Operand* find_operand(const OpCall& call, std::string_view name) {
  for (const Operand& operand : call.operands)
    if (operand.name == name) return &operand;
  return nullptr;
}

// The letter of the first dim in an operand's name ("y_TD": T), or 0.
char first_dim(std::string_view name) {
  const size_t at = name.rfind('_');
  return at != std::string_view::npos && std::isupper(name[at + 1]) ? name[at + 1] : '\0';
}

// The input whose rows become those of an output: "dx" follows "x"; else the first with the same first dim.
const Operand* leader_of(const OpCall& call, const Operand& output) {
  if (output.name.starts_with('d'))
    if (const Operand* same = find_operand(call, output.name.substr(1))) return same;
  for (const Operand& operand : call.operands)
    if (operand.role == Role::kIn && first_dim(operand.name) == first_dim(output.name)) return &operand;
  return nullptr;
}

// Of rows in memory the whole first dim; of the operands of a product, the dim before the last.
int leading_dim(OpId op, const View& view) { return op == OpId::matmul ? view.rank() - 2 : 0; }

std::vector<int32_t> read_integers(const layers::Ctx& ctx, const View& view) {
  std::vector<int32_t> values(view.size());
  ctx.device.copy_to_host(ctx.stream, values.data(), view);
  return values;
}

}  // namespace

int RowOrigins::row_dim(const View& view) {
  const auto begin = view.strides.begin(), end = begin + view.rank();
  return view.rank() == 0 ? 0 : static_cast<int>(std::max_element(begin, end) - begin);
}

std::vector<Origin> RowOrigins::rows(const View& view) const {
  if (view.rank() == 0 || view.size() == 0) return {};
  const int dim = row_dim(view);
  const int64_t row_bytes = view.strides[dim] * dtype_bytes(view.dtype);
  const char* first = static_cast<const char*>(view.raw());
  const char* last = first + (view.dim(dim) - 1) * row_bytes;
  std::vector<const Stretch*> candidates;
  for (const Stretch& stretch : stretches_)
    if (stretch.begin <= last && stretch.end > first) candidates.push_back(&stretch);
  std::vector<Origin> out;
  for (const char* address = first; address <= last; address += row_bytes) {
    const auto holds = [&](const Stretch* s) { return address >= s->begin && address < s->end; };
    const auto stretch = std::find_if(candidates.begin(), candidates.end(), holds);
    if (stretch == candidates.end() || (*stretch)->origins.empty()) return {};
    out.push_back((*stretch)->origins[(address - (*stretch)->begin) / (*stretch)->row_bytes]);
  }
  return out;
}

void RowOrigins::set(const View& view, std::vector<Origin> origins) {
  if (view.rank() == 0 || view.size() == 0) return;
  const char* begin = static_cast<const char*>(view.raw());
  const char* end = begin + span_elements(view) * dtype_bytes(view.dtype);
  const int64_t row_bytes = std::max<int64_t>(view.strides[row_dim(view)] * dtype_bytes(view.dtype), 1);
  std::erase_if(stretches_, [&](const Stretch& old) { return old.begin >= begin && old.end <= end; });
  stretches_.push_front({begin, end, row_bytes, std::move(origins)});
}

std::vector<Origin> RowOrigins::gathered(const View& source, const View& index) const {
  const std::vector<Origin> from = rows(source);
  std::vector<Origin> out;
  const Origin unknown{};
  for (const int32_t i : read_integers(ctx_, index))
    out.push_back(i < 0 ? Origin{Origin::kPadding} : from.empty() ? unknown : from[i]);
  return out;
}

std::vector<Origin> RowOrigins::pooled(const View& source, const View& row_C, int64_t rate) const {
  std::vector<Origin> out = gathered(source, row_C);
  for (Origin& origin : out) origin.num_tokens = static_cast<int32_t>(rate);
  return out;
}

std::vector<Origin> RowOrigins::scattered(const View& target, const View& source, const View& index) const {
  const std::vector<Origin> from = rows(source);
  std::vector<Origin> out = rows(target);
  if (from.empty()) return out;
  out.resize(target.dim(row_dim(target)));
  const std::vector<int32_t> to = read_integers(ctx_, index);
  for (size_t r = 0; r < to.size(); ++r)
    if (to[r] >= 0) out[to[r]] = from[r];
  return out;
}

std::vector<Origin> RowOrigins::inherited(const OpCall& call, const Operand& output) const {
  const Operand* leader = leader_of(call, output);
  if (!leader || leader->view.rank() == 0) return {};
  const int from = leading_dim(call.id, leader->view), to = leading_dim(call.id, output.view);
  if (row_dim(leader->view) != from || row_dim(output.view) != to || leader->view.dim(from) != output.view.dim(to))
    return {};
  return rows(leader->view);
}

void RowOrigins::number(const View& view, const std::vector<int32_t>& rows) {
  std::vector<Origin> origins;
  for (const int32_t row : rows) origins.push_back({row});
  set(view, std::move(origins));
}

void RowOrigins::follow(const OpCall& call) {
  const auto view = [&](size_t i) -> const View& { return call.operands[i].view; };
  switch (call.id) {
    case OpId::fill:
      return set(view(0), {});
    case OpId::gather_rows:
      return set(view(0), gathered(view(1), view(2)));
    case OpId::scatter_rows:
    case OpId::scatter_add_rows:
      return set(view(0), scattered(view(0), view(1), view(2)));
    case OpId::compress_forward: {
      // An entry stands for a window; ape has a row for each of its tokens.
      const Operand *rows = find_operand(call, "row_C"), *ape = find_operand(call, "ape_mZ");
      return set(view(0), pooled(view(1), rows->view, ape->view.dim(0)));
    }
    default:
      break;
  }
  // Outputs may overlay inputs: all are looked up before any is set.
  std::vector<std::vector<Origin>> found;
  for (const Operand& operand : call.operands)
    found.push_back(operand.role == Role::kIn ? std::vector<Origin>{} : inherited(call, operand));
  for (size_t i = 0; i < call.operands.size(); ++i)
    if (call.operands[i].role != Role::kIn) set(view(i), std::move(found[i]));
}

}  // namespace temper::train
