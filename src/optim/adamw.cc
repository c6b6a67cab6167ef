#include "optim/adamw.h"

namespace temper::optim {

void Adamw::step(layers::Ctx& ctx, std::span<layers::Parameter* const> parameters, double lr, double grad_scale,
                 const UpdateMeter* meter) {
  ++num_applied_;
  if (meter) meter->begin(ctx);
  size_t i = 0;
  for (layers::Parameter* p : parameters) {
    if (!p->trainable) continue;
    CHECK(p->m.defined() && p->v.defined() && p->owned_grad().defined(), p->name);
    const size_t index = i++;
    if (p->num_owned() == 0) continue;
    const auto update = [&](const Stretch& s, const View& squares_2) {
      const auto of = [&](const View& owned) { return owned.reshape({owned.size()}).rows(s.begin, s.end); };
      ctx.ops.adamw(ctx.stream, of(p->master), of(p->m), of(p->v), of(p->owned_value()), squares_2, of(p->owned_grad()),
                    lr, options_.beta1, options_.beta2, options_.eps, p->decay ? options_.weight_decay : 0,
                    num_applied_, grad_scale);
    };
    if (meter) {
      const LocalRow& row = meter->row_of(*p, index);
      for_each_stretch(meter->whole(), row, [&](const Stretch& s) { update(s, meter->squares_2(row, s)); });
    } else {
      update({0, p->num_owned(), 0}, {});
    }
  }
}

}  // namespace temper::optim
