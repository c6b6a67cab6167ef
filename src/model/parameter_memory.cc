#include "model/parameter_memory.h"

namespace temper::model {
namespace {

using layers::Parameter;
using layers::ParameterList;

// Unit of a name: "model.layers.7.*", "mtp.0.*", or one of the ends.
size_t unit_of(const std::string& name, size_t num_layers) {
  constexpr std::string_view kLayers = "model.layers.";
  if (name.starts_with("mtp.")) return num_layers;
  if (!name.starts_with(kLayers)) return std::string::npos;
  return static_cast<size_t>(std::stoll(name.substr(kLayers.size())));
}

// The whole tensor, with room for all pieces in full.
Shape exchanged(const Parameter& p) {
  return p.is_shared() ? Shape{p.share.size * p.share.piece(p.shape.size())} : p.shape;
}

Shape piece(const Parameter& p) { return p.is_shared() ? Shape{p.num_owned()} : p.shape; }

// A piece that whole tensors are put together from: as long as all the others.
Shape full_piece(const Parameter& p) { return {p.share.piece(p.shape.size())}; }

bool is_trained(const Parameter& p, const ModelOptions& options) { return p.trainable && options.train; }

// Whether only pieces of the unit's values (from zero 3 on) or gradients (from zero 2 on) stay.
bool comes_and_goes(const Parameter& p, const ModelOptions& options, int64_t from_zero) {
  return options.part.zero >= from_zero && p.is_shared() && is_trained(p, options);
}

void declare_what_stays(Book& book, Parameter& p, const ModelOptions& options, DType acc, bool is_end) {
  const bool value_goes = !is_end && comes_and_goes(p, options, 3),
             grad_goes = !is_end && comes_and_goes(p, options, 2);
  if (value_goes) {
    book.declare(&p.value_piece, TensorKind::kParameter, p.name, p.dtype, full_piece(p));
  } else {
    book.declare(&p.value, TensorKind::kParameter, p.name, p.dtype, exchanged(p));
  }
  if (!is_trained(p, options)) return;
  if (p.dtype != acc) book.declare(&p.master, TensorKind::kMaster, p.name, acc, piece(p));
  if (grad_goes) {
    book.declare(&p.grad_piece, TensorKind::kGradient, p.name, acc, full_piece(p));
  } else {
    book.declare(&p.grad, TensorKind::kGradient, p.name, acc, exchanged(p));
  }
  if (!options.optimizer) return;
  book.declare(&p.m, TensorKind::kMoment, p.name + ":m", acc, piece(p));
  book.declare(&p.v, TensorKind::kMoment, p.name + ":v", acc, piece(p));
}

// What exists for one unit at a time.
void declare_what_goes(Book& book, Parameter& p, DType acc) {
  if (p.value_piece.defined()) book.declare(&p.value, TensorKind::kParameter, p.name + ":whole", p.dtype, exchanged(p));
  if (p.grad_piece.defined()) book.declare(&p.grad, TensorKind::kGradient, p.name + ":whole", acc, exchanged(p));
}

void set_shape(View& view, const Shape& shape) {
  if (view.defined()) view = View(view.base, view.dtype, shape, view.offset);
}

}  // namespace

bool is_expert(const Parameter& p) { return p.name.find(".mlp.experts.") != std::string::npos; }
bool is_slice(const Parameter& p) { return p.part.whole.rank() > 0 && !is_expert(p); }

void clear_gradient(layers::Ctx& ctx, const Parameter& p) {
  p.grad_is_stale = p.grad_by_products;
  if (!p.grad_is_stale) ctx.ops.fill(ctx.stream, p.grad, 0);
}

void share_parameters(const ParameterList& parameters, const ModelOptions& options) {
  const ModelPart& part = options.part;
  for (Parameter* p : parameters)
    if (part.zero > 0 && is_trained(*p, options))
      p->share = is_expert(*p) ? part.expert_share : is_slice(*p) ? part.slice_share : part.share;
}

std::vector<ParameterList> parameter_units(const ParameterList& parameters, int64_t num_layers, bool has_mtp) {
  std::vector<ParameterList> units(num_layers + (has_mtp ? 1 : 0) + 1);
  for (Parameter* p : parameters) {
    const size_t unit = unit_of(p->name, static_cast<size_t>(num_layers));
    (unit == std::string::npos ? units.back() : units[unit]).push_back(p);
  }
  return units;
}

std::vector<int64_t> unit_places(const std::vector<ParameterList>& units, bool overlap) {
  std::vector<int64_t> places;
  int64_t num_before = 0;
  for (const ParameterList& unit : units) {
    places.push_back(overlap ? num_before % 2 : 0);
    if (!unit.empty()) ++num_before;
  }
  return places;
}

void declare_parameters(Book& book, const std::vector<ParameterList>& units, const ModelOptions& options, DType acc) {
  for (const ParameterList& unit : units)
    for (Parameter* p : unit) declare_what_stays(book, *p, options, acc, &unit == &units.back());
  const std::vector<int64_t> places = unit_places(units, options.part.overlap);
  for (int64_t place = 0; place < 2; ++place) {
    const int64_t values = book.mark(TensorKind::kParameter), gradients = book.mark(TensorKind::kGradient);
    for (size_t unit = 0; unit < units.size(); ++unit) {
      if (places[unit] != place) continue;
      book.rewind(TensorKind::kParameter, values), book.rewind(TensorKind::kGradient, gradients);
      for (Parameter* p : units[unit]) declare_what_goes(book, *p, acc);
    }
    book.seal(TensorKind::kParameter), book.seal(TensorKind::kGradient);
  }
}

void bind_parameters(const std::vector<ParameterList>& units, DType acc) {
  for (const ParameterList& unit : units) {
    for (Parameter* p : unit) {
      set_shape(p->value, p->shape), set_shape(p->grad, p->shape);
      if (p->trainable && !p->master.defined() && p->dtype == acc) p->master = p->owned_value();
    }
  }
}

}  // namespace temper::model
