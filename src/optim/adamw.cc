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
    const double decay = p->decay ? options_.weight_decay : 0;
    const View squares_2 = meter ? meter->squares_2(*p, i++) : View{};
    if (p->num_owned() == 0) continue;
    ctx.ops.adamw(ctx.stream, p->master, p->m, p->v, p->owned_value(), squares_2, p->owned_grad(), lr, options_.beta1,
                  options_.beta2, options_.eps, decay, num_applied_, grad_scale);
  }
}

}  // namespace temper::optim
