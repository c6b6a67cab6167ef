#include "base/path_inside.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/scratch_dir.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

// ROOT/secret, and ROOT/model with a file `real` and a folder `folder` with a file `real`.
class PathInside : public testing::Test {
 protected:
  PathInside() {
    fs::create_directories(model_ / "folder");
    for (const fs::path& path : {root_ / "secret", model_ / "real", model_ / "folder/real"}) std::ofstream(path) << "x";
  }

  static std::string refusal(const fs::path& dir, const fs::path& name) {
    try {
      path_inside(dir, name);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  const test::ScratchDir scratch_;
  const fs::path root_ = scratch_.path(), model_ = root_ / "model";
};

TEST_F(PathInside, FilesAndLinksThatStayAreRead) {
  EXPECT_EQ(path_inside(model_, "real"), model_ / "real");
  EXPECT_EQ(path_inside(model_, "folder/real"), model_ / "folder/real");
  EXPECT_EQ(path_inside(model_, "absent"), model_ / "absent");
  fs::create_symlink("folder/real", model_ / "link");
  EXPECT_EQ(path_inside(model_, "link"), model_ / "link");
  fs::create_symlink(fs::absolute(model_ / "real"), model_ / "absolute");
  EXPECT_EQ(path_inside(model_, "absolute"), model_ / "absolute");
  fs::create_directory_symlink("model", root_ / "name of the user's");
  EXPECT_EQ(refusal(root_ / "name of the user's", "link"), "");
}

TEST_F(PathInside, LinksThatLeaveAreRefusedWithTheirTarget) {
  fs::create_symlink("../secret", model_ / "up");
  fs::create_symlink(fs::absolute(root_ / "secret"), model_ / "absolute");
  fs::create_symlink("up", model_ / "twice");
  fs::create_directory_symlink("..", model_ / "outside");
  for (const char* name : {"up", "absolute", "twice", "outside/secret"}) {
    EXPECT_NE(refusal(model_, name).find((model_ / name).string() + ": a link to"), std::string::npos) << name;
    EXPECT_NE(refusal(model_, name).find("/secret, outside"), std::string::npos) << name;
  }
  fs::create_symlink("nowhere", model_ / "dangling");
  EXPECT_NE(refusal(model_, "dangling").find("cannot be followed"), std::string::npos);
  fs::create_directory(root_ / "model2");  // begins with the same letters
  std::ofstream(root_ / "model2/file") << "x";
  fs::create_symlink("../model2/file", model_ / "neighbour");
  EXPECT_NE(refusal(model_, "neighbour"), "");
}

TEST_F(PathInside, LinksOfTheHuggingFaceCacheAreFollowed) {
  const fs::path repository = root_ / "models--org--name", snapshot = repository / "snapshots/0123";
  fs::create_directories(repository / "blobs");
  fs::create_directories(snapshot / "encoding");
  std::ofstream(repository / "blobs/abc") << "x";
  std::ofstream(repository / "refs") << "x";
  fs::create_symlink("../../blobs/abc", snapshot / "config.json");
  fs::create_symlink("../../../blobs/abc", snapshot / "encoding/file");
  fs::create_symlink("../../refs", snapshot / "refs");
  EXPECT_EQ(refusal(snapshot, "config.json"), "");
  EXPECT_EQ(refusal(snapshot, "encoding/file"), "");
  EXPECT_NE(refusal(snapshot, "refs"), "");
  fs::remove_all(repository / "blobs");
  fs::create_directory_symlink(root_, repository / "blobs");  // blobs that are elsewhere are no blobs
  fs::create_symlink("../../blobs/secret", snapshot / "leak");
  EXPECT_NE(refusal(snapshot, "leak"), "");
}

}  // namespace
}  // namespace temper
