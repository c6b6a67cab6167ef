// The data of `make demo`, made from two Debian packages: the King James Bible (bible-kjv, bible-kjv-text) to go on
// pre-training with, and the CMU pronouncing lexicon (festlex-cmu) to fine-tune on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace temper::data {

struct DemoSources {
  // A shell command that prints a verse a line: "Ge1:1 In the beginning ...".
  std::string bible_command = "bible -f gen1:1-rev22:21";
  // A line per entry: ("aardvark" nil (((aa r d) 1) ((v aa r k) 2))): word, part of speech, syllables with their
  // stress.
  std::filesystem::path lexicon = "/usr/share/festival/dicts/cmu/cmudict-0.4.out";
};

struct DemoReport {
  int64_t num_chapters = 0, num_bible_bytes = 0;
  int64_t num_entries = 0;                             // pronunciations in the lexicon
  int64_t num_train_words = 0, num_heldout_words = 0;  // distinct words
  int64_t vocab_size = 0;
};

// Writes into `directory`, which is created, replacing files of these names:
//   bible.jsonl               {"text": a chapter, a verse a line}
//   pronounce.train.jsonl     {"messages": [{user: "aardvark"}, {assistant: "aa r d v aa r k"}]}: the first
//   pronunciation of pronounce.heldout.jsonl   each distinct word, stress dropped. Held out: words whose FNV-1a hash is
//   0 modulo 50, in the order
//                             of their hashes, so that any first part of the file is a fair sample
//   tokenizer/                tokenizer.json, tokenizer_config.json: DeepSeek's kind; each phone with the blank before
//   it is one
//                             token, letters of words stay single
// The same packages give the same bytes. Refuses: kNotFound, a package that is not installed (it names the apt
// command); kCorrupt, a line that is not as above; kIo.
DemoReport prepare_demo(const std::filesystem::path& directory, const DemoSources& sources = {});

}  // namespace temper::data
