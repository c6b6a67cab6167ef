// The rules of the house hold, and tools/check_house would notice if they did not.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "base/scratch_dir.h"

namespace temper {
namespace {

struct Outcome {
  int exit_status;
  std::string output;
};

Outcome check_house(const std::filesystem::path& root) {
  const std::string command = std::string(TEMPER_SOURCE_DIR "/tools/check_house '") + root.string() + "' 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  std::string output;
  char buffer[4096];
  while (const size_t count = fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, count);
  return {WEXITSTATUS(pclose(pipe)), output};
}

TEST(House, RulesHold) {
  const Outcome outcome = check_house(TEMPER_SOURCE_DIR);
  EXPECT_EQ(outcome.exit_status, 0) << outcome.output;
}

struct Plant {
  const char* name;
  const char* path;
  std::string contents;
  const char* expected;  // in the output
};

class Planted : public testing::TestWithParam<Plant> {
 protected:
  void SetUp() override {
    write("src/layers/README.md", "# layers\n");
    write("src/layers/norm.cc", "#include \"base/error.h\"\n#include \"layers/norm.h\"\n");
  }
  void write(const std::string& path, const std::string& contents) { root_.write(path, contents); }
  const test::ScratchDir root_;
};

TEST_P(Planted, IsFound) {
  ASSERT_EQ(check_house(root_.path()).exit_status, 0) << "the tree must be in order before the breach is planted";
  write(GetParam().path, GetParam().contents);
  const Outcome outcome = check_house(root_.path());
  EXPECT_EQ(outcome.exit_status, 1);
  EXPECT_NE(outcome.output.find(GetParam().expected), std::string::npos) << outcome.output;
}

std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "//\n";
  return text;
}

INSTANTIATE_TEST_SUITE_P(
    House, Planted,
    testing::Values(
        Plant{"UpwardInclude", "src/layers/a.cc", "\n#include \"model/model.h\"\n",
              "src/layers/a.cc:2: layers (floor 2) may not"},
        Plant{"SideInclude", "src/layers/a.h", "#include \"train/step.h\"\n", "may not include train"},
        Plant{"PrivateBackend", "src/layers/a.cc", "#include \"backend/cpu/simd.h\"\n", "private to src/backend/cpu"},
        Plant{"UnknownRoom", "src/utils/a.cc", "int x;\n", "room \"utils\" has no floor"},
        Plant{"NoRoomInInclude", "src/layers/a.cc", "#include \"norm.h\"\n", "does not begin with a room"},
        Plant{"VendorWord", "src/layers/a.cc", "void* p = cudaMalloc(1);\n", "src/layers/a.cc:1: a word of cuda"},
        Plant{"VendorComment", "src/layers/a.cc", "// as MPI_Allreduce does\n", "a word of mpi"},
        Plant{"LongSource", "src/layers/a.cc", lines(501), "501 lines, the limit here is 500"},
        Plant{"LongHeader", "src/layers/a.h", lines(201), "201 lines, the limit here is 200"},
        Plant{"LongReadme", "src/layers/README.md", lines(31), "31 lines, the limit here is 30"},
        Plant{"NoReadme", "src/model/a.cc", "int x;\n", "src/model:1: a folder without README.md"},
        Plant{"MachinePath", "docs/README.md", std::string("see /") + "home/me/notes\n", "a path of one machine"},
        Plant{"RegistryHost", "docs/README.md", std::string("from pypi") + ".org\n", "the host of a package registry"},
        Plant{"Reminder", "src/layers/a.cc", std::string("// TO") + "DO later\n", "a reminder"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace temper
