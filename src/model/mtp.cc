#include "model/mtp.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace temper::model {

using layers::Ctx;

MtpBatch make_mtp_batch(const layers::MicroBatch& batch) {
  MtpBatch out;
  out.batch.cu_seqlens = {0};
  for (size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s) {
    const int32_t begin = batch.cu_seqlens[s], end = batch.cu_seqlens[s + 1];
    for (int32_t t = begin; t + 1 < end; ++t) {
      out.rows_R.push_back(t);
      out.batch.tokens.push_back(batch.tokens[t + 1]);
      out.batch.targets.push_back(batch.targets[t + 1]);
      out.batch.weights.push_back(batch.weights[t + 1]);
    }
    if (end - begin > 1) out.batch.cu_seqlens.push_back(static_cast<int32_t>(out.rows_R.size()));
  }
  return out;
}

Mtp::Mtp(const Config& c, layers::Dtypes dtypes, const ModelPart& part)
    : M_(c.hc_mult),
      D_(c.hidden_size),
      dtypes_(dtypes),
      e_proj_{matrix("mtp.0.e_proj.weight", {D_, D_}, dtypes)},
      h_proj_{matrix("mtp.0.h_proj.weight", {D_, D_}, dtypes)},
      enorm_{fine_parameter("mtp.0.enorm.weight", {D_}, dtypes, layers::Init::kOnes), c.rms_norm_eps},
      hnorm_{fine_parameter("mtp.0.hnorm.weight", {D_}, dtypes, layers::Init::kOnes), c.rms_norm_eps},
      norm_{fine_parameter("mtp.0.norm.weight", {D_}, dtypes, layers::Init::kOnes), c.rms_norm_eps},
      block_("mtp.0.", block_dims(c, c.num_hidden_layers, part), dtypes),
      head_hyper_("mtp.0.hc_head.", {M_, D_, c.hc_sinkhorn_iters, c.rms_norm_eps, c.hc_eps}, true, dtypes),
      part_(part.tensor()) {}

void Mtp::begin(const layers::MicroBatch& batch, const layers::RowCut& main_rows) {
  has_run_ = false;
  mtp_ = make_mtp_batch(batch);
  const auto& rows_R = mtp_.rows_R;
  cut_ = {main_rows.rank, {}};
  for (const int64_t row : main_rows.begin_R)
    cut_.begin_R.push_back(std::lower_bound(rows_R.begin(), rows_R.end(), row) - rows_R.begin());
  main_rows_G_.assign(rows_R.begin() + cut_.begin(), rows_R.begin() + cut_.end());
  for (int32_t& row : main_rows_G_) row -= static_cast<int32_t>(main_rows.begin());
  num_main_rows_ = main_rows.num_rows();
}

Mtp::Sharing Mtp::sharing() const {
  const int64_t G = cut_.num_rows();
  // The group's rows whose main row a rank has, and those that it gets.
  const auto has = [&](int64_t rank) {
    const layers::TensorPart of{rank, part_.size};
    const auto first = [&](int64_t main_row) {
      return std::lower_bound(main_rows_G_.begin(), main_rows_G_.end(), main_row) - main_rows_G_.begin();
    };
    return std::pair<int64_t, int64_t>(first(of.begin(num_main_rows_)), first(of.end(num_main_rows_)));
  };
  const auto gets = [&](int64_t rank) {
    const layers::TensorPart of{rank, part_.size};
    return std::pair<int64_t, int64_t>(of.begin(G), of.end(G));
  };
  const auto common = [](std::pair<int64_t, int64_t> a, std::pair<int64_t, int64_t> b) {
    return std::max<int64_t>(0, std::min(a.second, b.second) - std::max(a.first, b.first));
  };
  Sharing out;
  std::tie(out.begin, out.end) = has(part_.rank);
  for (int64_t r = 0; r < part_.size; ++r) {
    out.send_rows_S.push_back(common(has(part_.rank), gets(r)));
    out.recv_rows_S.push_back(common(has(r), gets(part_.rank)));
  }
  return out;
}

std::span<const int32_t> Mtp::tokens() const {
  return std::span<const int32_t>(mtp_.batch.tokens).subspan(cut_.begin(), cut_.num_rows());
}

void Mtp::collect(layers::ParameterList& list) {
  list.insert(list.end(), {&e_proj_.w, &h_proj_.w, &enorm_.w, &hnorm_.w});
  block_.collect(list);
  list.push_back(&norm_.w);
  head_hyper_.collect(list);
}

void Mtp::declare_saved(Book& book, int64_t max_tokens) {
  const int64_t R = part_.piece(max_tokens), X = R * M_;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kSaved, std::string("mtp.0:") + what, dtype, shape);
  };
  book.declare(&row_R_, TensorKind::kInput, "mtp.0:row", DType::kI32, {R});
  book.declare(&token_row_X_, TensorKind::kInput, "mtp.0:token_row", DType::kI32, {X});
  layout_.declare(book, {max_tokens}, {});
  declare(e_RD_, "e", dtypes_.act, {R, D_});
  declare(en_RD_, "en", dtypes_.act, {R, D_});
  declare(x_RMD_, "x", dtypes_.act, {R, M_, D_});
  declare(hn_RMD_, "hn", dtypes_.act, {R, M_, D_});
  declare(in_RMD_, "in", dtypes_.act, {R, M_, D_});
  declare(out_RMD_, "out", dtypes_.act, {R, M_, D_});
  declare(v_RD_, "v", dtypes_.act, {R, D_});
  declare(y_RD_, "y", dtypes_.act, {R, D_});
  declare(e_rstd_R_, "e_rstd", dtypes_.acc, {R});
  declare(x_rstd_X_, "x_rstd", dtypes_.acc, {X});
  declare(v_rstd_R_, "v_rstd", dtypes_.acc, {R});
  head_hyper_.declare_saved(book, head_saved_, R);
  block_.declare_choices(book, max_tokens);
  block_.declare_saved(book, max_tokens);
}

void Mtp::declare_scratch(Book& book, int64_t max_tokens, int64_t num_threads, bool train) {
  const ScratchScope scope(book);
  const int64_t R = part_.piece(max_tokens);
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, std::string("mtp.0:") + what, dtype, shape);
  };
  declare(ep_RD_, "ep", dtypes_.act, {R, D_});
  if (part_.is_cut()) declare(shared_x_RMD_, "shared_x", dtypes_.act, {R, M_, D_});
  if (train) {
    book.declare(&din_act_RMD_, dtypes_.operands, "mtp.0:din_act", dtypes_.act, {R, M_, D_});
    book.declare(&de_act_RD_, dtypes_.operands, "mtp.0:de_act", dtypes_.act, {R, D_});
    if (part_.is_cut()) declare(shared_dh_RMD_, "shared_dh", dtypes_.acc, {R, M_, D_});
    declare(dx_RMD_, "dx", dtypes_.acc, {R, M_, D_});
    declare(dh_RMD_, "dh", dtypes_.acc, {R, M_, D_});
    declare(de_RD_, "de", dtypes_.acc, {R, D_});
    declare(den_RD_, "den", dtypes_.acc, {R, D_});
    head_hyper_.declare_scratch(book, R);
  }
  block_.declare_scratch(book, max_tokens, num_threads, train);
}

void Mtp::forward(Ctx& ctx, View x_TMD, const layers::Embedding& embedding, const Block::Choosing& choosing,
                  int64_t window, const layers::RotaryTable& main_rotary) {
  const int64_t T = x_TMD.dim(0), R = num_rows(), X = R * M_;
  has_run_ = true;
  layout_.upload(ctx.device, ctx.stream, mtp_.batch,
                 layers::cut_layout(layers::make_layout(mtp_.batch.cu_seqlens, window, {}), cut_));
  const Sharing shared = sharing();
  const int64_t num_shared = shared.end - shared.begin;
  std::vector<int32_t> rows(main_rows_G_.begin() + shared.begin, main_rows_G_.begin() + shared.end);
  for (int32_t& row : rows) row -= static_cast<int32_t>(part_.begin(num_main_rows_));
  if (num_shared > 0) ctx.device.copy_to_device(ctx.stream, row_R_.first(num_shared), rows.data());
  std::vector<int32_t> token_rows(X);
  for (int64_t x = 0; x < X; ++x) token_rows[x] = static_cast<int32_t>(x / M_);
  if (R > 0) ctx.device.copy_to_device(ctx.stream, token_row_X_.first(X), token_rows.data());

  const View e_RD = e_RD_.first(R), en_RD = en_RD_.first(R), x_RMD = x_RMD_.first(R), hn_RMD = hn_RMD_.first(R);
  const View in_RMD = in_RMD_.first(R), out_RMD = out_RMD_.first(R), ep_RD = ep_RD_.first(R);
  embedding.forward(ctx, e_RD.reshape({R, 1, D_}), tokens(), layout_.token_T);
  enorm_.forward(ctx, en_RD, e_rstd_R_.first(R), e_RD);
  const View shared_x_RMD = part_.is_cut() ? shared_x_RMD_.first(num_shared) : x_RMD;
  ctx.ops.gather_rows(ctx.stream, shared_x_RMD.reshape({num_shared, M_ * D_}), x_TMD.reshape({T, M_ * D_}),
                      row_R_.first(num_shared));
  if (part_.is_cut())
    ctx.groups.tp->all_to_all_v(ctx.stream, x_RMD, shared.recv_rows_S, shared_x_RMD, shared.send_rows_S,
                                {"rows of prediction", ctx.layer});
  hnorm_.forward(ctx, hn_RMD.reshape({X, D_}), x_rstd_X_.first(X), x_RMD.reshape({X, D_}));
  // Y_i = Weproj e + Whproj hh_i: the first term goes to every stream, the product adds to it.
  e_proj_.forward(ctx, ep_RD, en_RD);
  ctx.ops.gather_rows(ctx.stream, in_RMD.reshape({X, D_}), ep_RD, token_row_X_.first(X));
  h_proj_.forward(ctx, in_RMD.reshape({X, D_}), hn_RMD.reshape({X, D_}), 1);

  block_.forward(ctx, out_RMD, in_RMD, choosing, layout_, main_rotary);
  head_hyper_.pre(ctx, v_RD_.first(R), out_RMD, head_saved_.first(R));
  norm_.forward(ctx, y_RD_.first(R), v_rstd_R_.first(R), v_RD_.first(R));
}

void Mtp::backward(Ctx& ctx, View dx_TMD, const layers::Embedding& embedding, View dy_RD,
                   const layers::Moe::Balance& balance, const layers::RotaryTable& main_rotary) const {
  const int64_t T = dx_TMD.dim(0), R = num_rows(), X = R * M_;
  const View dx_RMD = dx_RMD_.first(R), dh_RMD = dh_RMD_.first(R), din_act_RMD = din_act_RMD_.first(R);
  norm_.backward(ctx, dy_RD, dy_RD, v_RD_.first(R), v_rstd_R_.first(R));
  ctx.ops.fill(ctx.stream, dx_RMD, 0);
  head_hyper_.backward_pre(ctx, dx_RMD, dy_RD, out_RMD_.first(R), head_saved_.first(R));
  block_.backward(ctx, dx_RMD, in_RMD_.first(R), layers::EntryUse::kBest, balance, layout_, main_rotary);

  // dx_RMD is now dY. Streams: dWhproj, and through the norm into the trunk.
  const View dy_XD = din_act_RMD.reshape({X, D_}), dh_XD = dh_RMD.reshape({X, D_});
  ctx.ops.copy(ctx.stream, din_act_RMD, dx_RMD);  // operands of a product have one dtype
  h_proj_.backward_weight(ctx, dy_XD, hn_RMD_.first(R).reshape({X, D_}));
  h_proj_.backward_input(ctx, dh_XD, dy_XD, 0);
  hnorm_.backward(ctx, dh_XD, dh_XD, x_RMD_.first(R).reshape({X, D_}), x_rstd_X_.first(X));
  const Sharing shared = sharing();
  const int64_t num_shared = shared.end - shared.begin;
  const View shared_dh_RMD = part_.is_cut() ? shared_dh_RMD_.first(num_shared) : dh_RMD;
  if (part_.is_cut())
    ctx.groups.tp->all_to_all_v(ctx.stream, shared_dh_RMD, shared.send_rows_S, dh_RMD, shared.recv_rows_S,
                                {"gradients of the rows of prediction", ctx.layer});
  ctx.ops.scatter_add_rows(ctx.stream, dx_TMD.reshape({T, M_ * D_}), shared_dh_RMD.reshape({num_shared, M_ * D_}),
                           row_R_.first(num_shared));

  // The embedding's term went to every stream: its gradient is their sum.
  const View de_RD = de_RD_.first(R), de_act_RD = de_act_RD_.first(R), den_RD = den_RD_.first(R);
  ctx.ops.fill(ctx.stream, de_RD, 0);
  ctx.ops.scatter_add_rows(ctx.stream, de_RD, dx_RMD.reshape({X, D_}), token_row_X_.first(X));
  ctx.ops.copy(ctx.stream, de_act_RD, de_RD);
  e_proj_.backward_weight(ctx, de_act_RD, en_RD_.first(R));
  e_proj_.backward_input(ctx, den_RD, de_act_RD, 0);
  enorm_.backward(ctx, den_RD, den_RD, e_RD_.first(R), e_rstd_R_.first(R));
  embedding.backward(ctx, den_RD.reshape({R, 1, D_}), tokens(), layout_.token_T);
}

}  // namespace temper::model
