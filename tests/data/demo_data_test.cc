#include "data/demo_data.h"

#include "data/reader.h"
#include "data_test_support.h"

namespace temper::data {
namespace {

class DemoDataTest : public DataTest {
 protected:
  // A Bible of two chapters and a lexicon of 200 words with doubles.
  DemoSources small_sources() const {
    std::string lexicon = "MNCL\n";
    for (int i = 0; i < 200; ++i)
      lexicon += fmt::format("(\"w{}\" nil (((w {}) 1) ((ax n) 0)))\n", i, i % 2 ? "ah" : "iy");
    lexicon += "(\"w0\" n (((ey) 1)))\n";
    const auto verses = write("bible.txt", "Ge1:1 In the beginning.\nGe1:2 And \"the\" earth.\n1Co2:1 And I.\n");
    return {"cat " + verses.string(), write("lexicon.out", lexicon)};
  }
};

TEST_F(DemoDataTest, WritesFilesThatTheReaderReads) {
  const auto out = folder_ / "demo";
  const DemoReport report = prepare_demo(out, small_sources());
  EXPECT_EQ(report.num_chapters, 2);
  EXPECT_EQ(report.num_entries, 201);
  EXPECT_EQ(report.num_train_words + report.num_heldout_words, 200);
  EXPECT_GT(report.num_heldout_words, 0);
  EXPECT_EQ(read_file(out / "bible.jsonl"),
            "{\"text\":\"In the beginning.\\nAnd \\\"the\\\" earth.\\n\"}\n{\"text\":\"And I.\\n\"}\n");
  const std::string all = read_file(out / "pronounce.train.jsonl") + read_file(out / "pronounce.heldout.jsonl");
  // The first pronunciation counts, without stress.
  EXPECT_NE(all.find(R"({"messages":[{"role":"user","content":"w0"},{"role":"assistant","content":"w iy ax n"}]})"),
            std::string::npos);
  const Tokenizer tokenizer = Tokenizer::load(out / "tokenizer");
  EXPECT_EQ(tokenizer.vocab_size(), report.vocab_size);
  EXPECT_TRUE(tokenizer.token_id(" ax").has_value());
  const std::vector<std::filesystem::path> files = {out / "pronounce.train.jsonl", out / "bible.jsonl"};
  ReadReport read;
  const auto examples = read_examples(files, tokenizer, {}, read);
  EXPECT_EQ(static_cast<int64_t>(examples.size()), report.num_train_words + 2);
}

TEST_F(DemoDataTest, TwiceGivesTheSameBytes) {
  const DemoSources sources = small_sources();
  prepare_demo(folder_ / "a", sources);
  prepare_demo(folder_ / "b", sources);
  prepare_demo(folder_ / "b", sources);
  for (const char* name :
       {"bible.jsonl", "pronounce.train.jsonl", "pronounce.heldout.jsonl", "tokenizer/tokenizer.json"})
    EXPECT_EQ(read_file(folder_ / "a" / name), read_file(folder_ / "b" / name)) << name;
}

TEST_F(DemoDataTest, NamesThePackageThatIsMissing) {
  DemoSources sources = small_sources();
  sources.lexicon = folder_ / "nowhere";
  expect_error(ErrorCode::kNotFound, {"apt-get install festlex-cmu"}, [&] { prepare_demo(folder_ / "o", sources); });
  sources.bible_command = "no-such-program-here";
  expect_error(ErrorCode::kNotFound, {"apt-get install bible-kjv", "127"},
               [&] { prepare_demo(folder_ / "o", sources); });
  EXPECT_FALSE(std::filesystem::exists(folder_ / "o"));
}

TEST_F(DemoDataTest, RefusesOtherFormats) {
  for (const char* bad : {"(\"w\" nil ((\xff)))", "word", "(\"\" nil (((a) 1)))", "(\"w\" nil ())", "(\"w", "(\"w)"}) {
    DemoSources sources = small_sources();
    sources.lexicon = write("bad.out", bad);
    expect_error(ErrorCode::kCorrupt, {"bad.out:1"}, [&] { prepare_demo(folder_ / "o", sources); });
  }
  for (const char* bad : {"no verse", "Ge1:", "Ge1:x word", ":1 word", " Ge1:1"}) {
    DemoSources sources = small_sources();
    sources.bible_command = "cat " + write("bad.txt", bad).string();
    expect_error(ErrorCode::kCorrupt, {"line 1 of the Bible"}, [&] { prepare_demo(folder_ / "o", sources); });
  }
}

TEST_F(DemoDataTest, ThePackagesOfDebian) {
  const DemoSources sources;
  if (!std::filesystem::exists(sources.lexicon) || !std::filesystem::exists("/usr/bin/bible"))
    GTEST_SKIP() << "needs the packages bible-kjv, bible-kjv-text and festlex-cmu";
  const DemoReport report = prepare_demo(folder_ / "demo", sources);
  EXPECT_EQ(report.num_chapters, 1189);
  EXPECT_GT(report.num_entries, 100000);
  EXPECT_NEAR(static_cast<double>(report.num_heldout_words) / static_cast<double>(report.num_train_words), 0.02, 0.002);
}

}  // namespace
}  // namespace temper::data
