// The released models at full size, without their weights: every key has its place in the model of their config.json,
// and comes back under its own name.
#include <gmock/gmock.h>

#include <set>

#include "checkpoint/files.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/release.h"
#include "checkpoint/weight_source.h"
#include "model/model.h"

namespace temper::checkpoint {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// A release as it lies on a disk.
struct OnDisk {
  ScratchDir dir;
  std::vector<TensorInfo> tensors;
  bool has_holes = false;
  explicit OnDisk(const Release& release, std::vector<TensorInfo> list) : tensors(std::move(list)) {
    has_holes = write_sparse(dir.path(), release, tensors);
  }
};

// The parameters of the directory's config.json, MTP block included; they have no memory.
model::Model model_of(const std::filesystem::path& dir) {
  model::ModelOptions options;
  options.max_tokens = 1;
  options.train = false;
  options.mtp = true;
  return {load_config(dir), options};
}

// As the makers count: without correction biases and tables of expert ids.
int64_t count_parameters(const WeightSource::Fit& fit, bool mtp) {
  int64_t count = 0;
  for (const auto& [tensor, parameter] : fit.pieces) {
    const std::string& name = parameter->name;
    const bool is_buffer = name.ends_with("tid2eid") || name.ends_with("e_score_correction_bias");
    if (!is_buffer && is_mtp_name(name) == mtp) count += tensor->encoded.size();
  }
  return count;
}

// The names that we would write, scales included, with dtype and shape.
std::set<std::string> names_back(const std::vector<layers::Parameter*>& parameters) {
  std::set<std::string> names;
  const auto add = [&](const TensorInfo& info) { names.insert(info.name + " " + info.to_string()); };
  for (const layers::Parameter* parameter : parameters)
    for (const auto& [stored, name] : stored_names(parameter->name, parameter->shape, NameStyle::kOfficial)) {
      const Shape part = part_of(View(nullptr, DType::kF32, parameter->shape), name).shape;
      std::vector<int64_t> shape;
      for (int i = 0; i < part.rank(); ++i) shape.push_back(part[i]);
      const ReleaseDType dtype = release_dtype(parameter->name);
      if (dtype == ReleaseDType::kFp8 || dtype == ReleaseDType::kFp4) {
        const Encoding encoding = dtype == ReleaseDType::kFp8 ? Encoding::kFp8 : Encoding::kFp4;
        add({stored, encoding == Encoding::kFp8 ? FileDType::kF8E4M3 : FileDType::kI8, stored_shape(encoding, shape)});
        add({scale_name(stored), FileDType::kF8E8M0, scale_shape(encoding, shape)});
        continue;
      }
      add({stored,
           dtype == ReleaseDType::kBF16  ? FileDType::kBF16
           : dtype == ReleaseDType::kF32 ? FileDType::kF32
                                         : FileDType::kI64,
           shape});
    }
  return names;
}

void audit(const Release& release, size_t num_tensors, int64_t main_parameters, int64_t mtp_parameters) {
  const OnDisk disk(release, release_tensors(release));
  EXPECT_EQ(disk.tensors.size(), num_tensors);
  if (!disk.has_holes) GTEST_SKIP() << "this file system has no holes: the files would take their full size";
  const model::Model model = model_of(disk.dir.path());
  const WeightSource source(disk.dir.path());
  EXPECT_EQ(source.mtp_kind(), MtpKind::kV4);
  const auto fit = source.fit(model.parameters(), true);
  EXPECT_THAT(fit.misfits, testing::IsEmpty());
  EXPECT_EQ(count_parameters(fit, false), main_parameters);
  EXPECT_EQ(count_parameters(fit, true), mtp_parameters);
  std::set<std::string> given;
  for (const auto& tensor : disk.tensors) given.insert(tensor.name + " " + tensor.to_string());
  EXPECT_EQ(given.size(), disk.tensors.size());
  EXPECT_TRUE(names_back(model.parameters()) == given);
}

// The number of tensors of Pro is not published; it follows as that of Flash does: 61 layers of 29 + 6 * 384 tensors,
// 30 of them CSA, 31 HCA, the MTP block and 6.
constexpr size_t kFlashTensors = 69'187, kProTensors = 61 * 2333 + 30 * 11 + 31 * 4 + (2304 + 39) + 6;

TEST(AuditTest, FlashFitsItsConfigKeyByKey) { audit(flash(), kFlashTensors, 284'332'230'231, 6'610'048'635); }

TEST(AuditTest, ProFitsItsConfigKeyByKey) { audit(pro(), kProTensors, 1'572'997'179'491, 25'840'145'595); }

TEST(AuditTest, AMissingAnExtraAndAWrongTensorAreNamed) {
  Release release = flash();
  release.n_routed_experts = 8;
  auto tensors = release_tensors(release);
  const auto find = [&](const std::string& name) {
    return std::find_if(tensors.begin(), tensors.end(), [&](const auto& tensor) { return tensor.name == name; });
  };
  tensors.erase(find("layers.7.ffn.experts.5.w3.weight"));
  tensors.erase(find("layers.2.attn.indexer.wq_b.scale"));
  tensors.erase(find("mtp.0.hnorm.weight"));
  find("layers.40.attn.wo_b.weight")->shape = {4096, 4096};
  find("layers.3.attn.compressor.ape")->name = "layers.3.attn.compressor.app";
  find("layers.42.ffn.experts.0.w1.scale")->shape = {2048, 64};
  const OnDisk disk(release, tensors);
  if (!disk.has_holes) GTEST_SKIP() << "this file system has no holes: the files would take their full size";
  const WeightSource source(disk.dir.path());
  const model::Model model = model_of(disk.dir.path());
  EXPECT_THAT(
      error_of([&] { source.refuse_misfits(source.fit(model.parameters(), true)); }),
      AllOf(HasSubstr("missing: layers.7.ffn.experts.5.w3.weight"), HasSubstr("layers.7.ffn.experts.5.w3.scale"),
            HasSubstr("layers.2.attn.indexer.wq_b.weight"), HasSubstr("missing: mtp.0.hnorm.weight [4096]"),
            HasSubstr("layers.40.attn.wo_b.weight"), HasSubstr("unknown: layers.3.attn.compressor.app"),
            HasSubstr("missing: model.layers.3.self_attn.compressor.position_bias [128, 512]"),
            HasSubstr("layers.42.ffn.experts.0.w1.weight")));
}

}  // namespace
}  // namespace temper::checkpoint
