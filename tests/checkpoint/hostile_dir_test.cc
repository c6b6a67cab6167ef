// Model directories that others made, and places to write to that others prepared: nothing outside of them is read or
// written.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "checkpoint/files.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/random_file.h"
#include "checkpoint/rewrite_staging.h"
#include "checkpoint/save_dir.h"
#include "checkpoint/tensor_dir.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const char* const kOne = R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";

// A good file of weights and a secret, both beside the directory of the model.
class HostileDirTest : public testing::Test {
 protected:
  HostileDirTest() {
    fs::create_directory(model_);
    put_safetensors(root_ / "outside.safetensors", kOne, 1);
    put(root_ / "secret", "{\"password\": 1}");
  }
  void expect_refused(const std::string& name, const std::string& message) const {
    EXPECT_THAT(message, AllOf(HasSubstr((model_ / name).string()), HasSubstr("outside of the directory"))) << name;
  }
  // A save of a model of one weight.
  std::string save_error(const SaveOptions& options, const fs::path& to) {
    HandMade model(layers::Precision::kFp32);
    model.matrix("lm_head.weight", {2, 2});
    model::Config config;
    config.source = "{}";
    return error_of([&] { save_weights(to, config, model.ctx(), model.parameters(), options); });
  }

  ScratchDir root_;
  const fs::path model_ = root_ / "model";
};

TEST_F(HostileDirTest, WeightsAndConfigAreNotReadThroughLinksToOutside) {
  fs::create_symlink("../secret", model_ / "config.json");
  expect_refused("config.json", error_of([&] { load_config(model_); }));
  fs::create_symlink("../outside.safetensors", model_ / "model.safetensors");
  expect_refused("model.safetensors", error_of([&] { TensorDir tensors(model_); }));
  fs::remove(model_ / "model.safetensors");
  fs::create_symlink("../outside.safetensors", model_ / "shard.safetensors");
  put(model_ / "model.safetensors.index.json", R"({"weight_map": {"x": "shard.safetensors"}})");
  expect_refused("shard.safetensors", error_of([&] { TensorDir tensors(model_); }));
  fs::remove(model_ / "model.safetensors.index.json");
  fs::create_symlink("../secret", model_ / "model.safetensors.index.json");
  expect_refused("model.safetensors.index.json", error_of([&] { TensorDir tensors(model_); }));
}

TEST_F(HostileDirTest, SideFilesDoNotCarryASecretIntoTheOutput) {
  fs::create_directory(model_ / "encoding");
  for (const char* name : {"tokenizer.json", "chat_template.jinja", "generation_config.json", "encoding/notes.md"}) {
    const fs::path out = root_ / "out";
    fs::create_symlink(root_ / "secret", model_ / name);
    SaveOptions options;
    options.source_dir = model_;
    expect_refused(name, save_error(options, out));
    EXPECT_FALSE(fs::exists(out / name)) << name;
    EXPECT_FALSE(fs::exists(out / ".saving")) << name;
    fs::remove(model_ / name);
    fs::remove_all(out);
  }
}

TEST_F(HostileDirTest, APipeInThePlaceOfAFileIsRefusedAndNotWaitedFor) {
  ASSERT_EQ(::mkfifo((model_ / "model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { TensorDir tensors(model_); }), HasSubstr("not a regular file"));
}

TEST_F(HostileDirTest, NothingIsWrittenThroughLinksThatLieInTheOutput) {
  fs::create_directory(root_ / "elsewhere");
  put(root_ / "elsewhere/kept", "kept");
  fs::create_directory_symlink("../elsewhere", model_ / ".saving");
  for (const char* name : {"config.json", "config.json.tmp", "model.safetensors"})
    fs::create_symlink("../secret", model_ / name);
  SaveOptions options;
  options.overwrite = true;
  EXPECT_EQ(save_error(options, model_), "no error");
  EXPECT_EQ(read_file(root_ / "secret"), "{\"password\": 1}");
  EXPECT_FALSE(fs::is_symlink(model_ / "config.json"));
  EXPECT_FALSE(fs::is_symlink(model_ / "model.safetensors"));
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(root_ / "elsewhere")) names.push_back(entry.path().filename());
  EXPECT_THAT(names, testing::ElementsAre("kept"));
}

TEST_F(HostileDirTest, AFolderOfTheOutputThatIsALinkIsRefused) {
  fs::create_directory(root_ / "elsewhere");
  fs::create_directory_symlink("../elsewhere", model_ / "encoding");
  ScratchDir source;
  fs::create_directory(source / "encoding");
  put(source / "encoding/notes.md", "n");
  SaveOptions options;
  options.source_dir = source.path();
  options.overwrite = true;
  EXPECT_THAT(save_error(options, model_), AllOf(HasSubstr("encoding"), HasSubstr("a link")));
  EXPECT_TRUE(fs::is_empty(root_ / "elsewhere"));
}

TEST_F(HostileDirTest, AConversionDoesNotGoOnInAFolderElsewhere) {
  fs::create_directory(root_ / "elsewhere");
  put(root_ / "elsewhere/plan", "plan");
  fs::create_directory_symlink("../elsewhere", model_ / ".converting");
  RewriteStaging staging(model_, "plan", true);
  EXPECT_FALSE(fs::is_symlink(model_ / ".converting"));
  put(root_ / "victim", "kept");
  fs::create_symlink(root_ / "victim", staging.part("model.safetensors"));
  RandomFile::create(staging.part("model.safetensors"), 4).write("abcd", 4, 0);
  EXPECT_EQ(read_file(root_ / "victim"), "kept");
  EXPECT_EQ(read_file(staging.part("model.safetensors")), "abcd");
}

}  // namespace
}  // namespace temper::checkpoint
