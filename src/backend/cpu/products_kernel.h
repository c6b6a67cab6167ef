// The packed product, one source for every instruction level (Goto & van de Geijn 2008, "Anatomy of High-Performance
// Matrix Multiplication"). Included last by products_<level>.cc, after its `#pragma GCC target`; nothing here may call
// an inline function of a header above, whose one copy could then hold instructions that other machines lack.
//
// A tile of kTileRows x (2 * kLanes) of c lives in registers; it reads packed panels of a and b:
//   a panel [units, kTileRows]      from cache level 2, one broadcast per row and unit
//   b panel [units, 2 * kLanes]     from cache level 1, whole vectors
// A unit is 32 bits: one f32 (also a bf16 widened while packing), or a pair of bf16 of consecutive k for the
// dot-product instruction of AVX-512-BF16. Packing reads either layout of an operand and pads with zeros.
//
// The including file defines kLanes (f32 lanes of a vector), kTileRows and TEMPER_BF16_PAIRS (0 | 1).

namespace temper::backend {
namespace {

constexpr int kTileVectors = 2;
constexpr int kTileCols = kTileVectors * kLanes;
constexpr int64_t kBlockUnits = 256;           // k-extent of a block whose sum goes on in an f32 c
constexpr int64_t kPanelAUnits = 64 * 1024;    // packed a: 256 KiB
constexpr int64_t kPanelBUnits = 1024 * 1024;  // packed b: 4 MiB

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Units __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

#define TEMPER_INLINE inline __attribute__((always_inline))

template <class V>
TEMPER_INLINE V load(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <class V>
TEMPER_INLINE void store(void* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}
TEMPER_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
TEMPER_INLINE int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// --- what an operand is made of -------------------------------------------------------------------------------------

// f32 operands.
struct F32 {
  static constexpr int64_t kElementBytes = 4, kPerUnit = 1;
  static TEMPER_INLINE Units load_along_k(const char* from) { return load<Units>(from); }
  static TEMPER_INLINE Units load_across_k(const char* row, int64_t /*stride_bytes*/) { return load<Units>(row); }
  static TEMPER_INLINE uint32_t unit(const char* from, int64_t /*stride_bytes*/, int64_t /*count*/) {
    return load<uint32_t>(from);
  }
  static TEMPER_INLINE Floats multiply_add(Floats sum, uint32_t a, Units b) {
    return sum + __builtin_bit_cast(float, a) * __builtin_bit_cast(Floats, b);
  }
};

// bf16 operands, widened to f32 while they are packed.
struct WidenedBf16 {
  static constexpr int64_t kElementBytes = 2, kPerUnit = 1;
  static TEMPER_INLINE Units load_along_k(const char* from) {
    return __builtin_convertvector(load<Halves>(from), Units) << 16;
  }
  static TEMPER_INLINE Units load_across_k(const char* row, int64_t /*stride_bytes*/) { return load_along_k(row); }
  static TEMPER_INLINE uint32_t unit(const char* from, int64_t /*stride_bytes*/, int64_t /*count*/) {
    return uint32_t{load<uint16_t>(from)} << 16;
  }
  static TEMPER_INLINE Floats multiply_add(Floats sum, uint32_t a, Units b) { return F32::multiply_add(sum, a, b); }
};

#if TEMPER_BF16_PAIRS
// bf16 operands in pairs (k, k + 1): sum += a_k b_k + a_{k+1} b_{k+1}.
struct PairedBf16 {
  static constexpr int64_t kElementBytes = 2, kPerUnit = 2;
  static TEMPER_INLINE Units load_along_k(const char* from) { return load<Units>(from); }
  static TEMPER_INLINE Units load_across_k(const char* row, int64_t stride_bytes) {
    return __builtin_convertvector(load<Halves>(row), Units) |
           (__builtin_convertvector(load<Halves>(row + stride_bytes), Units) << 16);
  }
  static TEMPER_INLINE uint32_t unit(const char* from, int64_t stride_bytes, int64_t count) {
    const uint32_t low = load<uint16_t>(from);
    return count == 1 ? low : low | uint32_t{load<uint16_t>(from + stride_bytes)} << 16;
  }
  static TEMPER_INLINE Floats multiply_add(Floats sum, uint32_t a, Units b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(a)), (__m512bh)b);
  }
};
#endif

// --- packing --------------------------------------------------------------------------------------------------------

// A matrix seen as lines along k: line i begins at data + i * line_stride, its k-th element is k * k_stride further on.
// For a the lines are rows, for b columns. Strides in bytes.
struct Lines {
  const char* data;
  int64_t line_stride, k_stride;
  TEMPER_INLINE const char* at(int64_t line, int64_t k) const { return data + line * line_stride + k * k_stride; }
};

// Transposes kLanes x kLanes units in registers: swap of the off-diagonal halves at distance 1, 2, 4, ...
TEMPER_INLINE void transpose(Units (&v)[kLanes]) {
#pragma GCC unroll 8
  for (int h = 1; h < kLanes; h *= 2) {
    Units low, high;  // shuffle masks over the concatenation of both operands
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      low[i] = (i & h) ? kLanes + i - h : i;
      high[i] = (i & h) ? kLanes + i : i + h;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & h) continue;
      const Units a = v[i], b = v[i + h];
      v[i] = __builtin_shuffle(a, b, low);
      v[i + h] = __builtin_shuffle(a, b, high);
    }
  }
}

// Packs `count` <= kHeight lines, elements [0, k), as panel[unit * kHeight + line]; missing lines and the half unit
// behind an odd k are zero.
template <class Arith, int kHeight>
void pack_panel(uint32_t* panel, Lines from, int64_t count, int64_t k) {
  const int64_t whole = k / Arith::kPerUnit, units = (k + Arith::kPerUnit - 1) / Arith::kPerUnit;
  int64_t first = 0, first_line = 0;
  if (from.k_stride == Arith::kElementBytes) {
    for (; first + kLanes <= whole; first += kLanes) {
      for (int64_t line = 0; line < kHeight; line += kLanes) {
        Units block[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          block[i] = line + i < count ? Arith::load_along_k(from.at(line + i, first * Arith::kPerUnit)) : Units{};
        }
        transpose(block);
        uint32_t* to = panel + first * kHeight + line;
        const int64_t width = smaller(kLanes, kHeight - line);
        if (width == kLanes) {
          for (int i = 0; i < kLanes; ++i) store(to + i * kHeight, block[i]);
        } else {
          for (int i = 0; i < kLanes; ++i) __builtin_memcpy(to + i * kHeight, &block[i], 4 * (kHeight % kLanes));
        }
      }
    }
  } else {
    // Lines lie side by side: whole vectors of lines, unit by unit; the rest below.
    first_line = count / kLanes * kLanes;
    for (int64_t unit = 0; unit < whole; ++unit) {
      const char* row = from.at(0, unit * Arith::kPerUnit);
      for (int64_t line = 0; line < first_line; line += kLanes) {
        store(panel + unit * kHeight + line, Arith::load_across_k(row + line * Arith::kElementBytes, from.k_stride));
      }
    }
  }
  for (int64_t unit = 0; unit < units; ++unit) {
    const int64_t begin = unit < whole ? (unit < first ? kHeight : first_line) : 0;
    for (int64_t line = begin; line < kHeight; ++line) {
      const int64_t at = unit * Arith::kPerUnit;
      panel[unit * kHeight + line] =
          line < count ? Arith::unit(from.at(line, at), from.k_stride, smaller(Arith::kPerUnit, k - at)) : 0;
    }
  }
}

// --- the register tile ----------------------------------------------------------------------------------------------

TEMPER_INLINE Halves to_bf16(Floats value) {
  const Units bits = __builtin_bit_cast(Units, value);
  const Units rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const Units nan = (bits >> 16) | 0x40u;
  return __builtin_convertvector((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded, Halves);
}
TEMPER_INLINE Floats from_bf16(Halves value) {
  return __builtin_bit_cast(Floats, __builtin_convertvector(value, Units) << 16);
}

struct Tile {
  char* c;
  int64_t c_row_bytes;
  int64_t cols;  // <= kTileCols
  bool c_is_bf16, accumulate;
};

TEMPER_INLINE void store_vector(char* to, Floats sum, bool is_bf16, bool accumulate) {
  if (is_bf16) {
    store(to, to_bf16(accumulate ? sum + from_bf16(load<Halves>(to)) : sum));
  } else {
    store(to, accumulate ? sum + load<Floats>(to) : sum);
  }
}

__attribute__((noinline)) void store_tile(const Floats* sum, int rows, Tile tile) {
  const int64_t element_bytes = tile.c_is_bf16 ? 2 : 4;
  const bool whole = tile.cols == kTileCols;
  for (int i = 0; i < rows; ++i) {
    char* to = tile.c + i * tile.c_row_bytes;
    char edge[4 * kTileCols];  // at the right edge: a row of full width, so that nothing beyond c is touched
    char* row = whole ? to : edge;
    if (!whole) __builtin_memcpy(edge, to, tile.cols * element_bytes);
    for (int j = 0; j < kTileVectors; ++j) {
      store_vector(row + j * kLanes * element_bytes, sum[i * kTileVectors + j], tile.c_is_bf16, tile.accumulate);
    }
    if (!whole) __builtin_memcpy(to, edge, tile.cols * element_bytes);
  }
}

// c rows [0, kRows) = (c +) panel a times panel b.
template <class Arith, int kRows>
__attribute__((noinline)) void tile_product(int64_t units, const uint32_t* a, const uint32_t* b, Tile tile) {
  const int64_t vector_bytes = (tile.c_is_bf16 ? 2 : 4) * kLanes;
  if (tile.accumulate) {
    for (int i = 0; i < kRows; ++i) {
      __builtin_prefetch(tile.c + i * tile.c_row_bytes, 1);
      __builtin_prefetch(tile.c + i * tile.c_row_bytes + vector_bytes, 1);
    }
  }
  Floats sum[kRows][kTileVectors] = {};
#pragma GCC unroll 2
  for (int64_t unit = 0; unit < units; ++unit) {
    Units column[kTileVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j) column[j] = load<Units>(b + unit * kTileCols + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kTileVectors; ++j)
        sum[i][j] = Arith::multiply_add(sum[i][j], a[unit * kTileRows + i], column[j]);
    }
  }
  // The epilogue runs over memory, not registers: a loop of few instructions instead of every case unrolled.
  Floats out[kRows][kTileVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j) out[i][j] = sum[i][j];
  }
  store_tile(&out[0][0], kRows, tile);
}

// Calls the tile of as many rows as there are, so that a short last tile costs what it computes.
template <class Arith, int kRows = kTileRows>
TEMPER_INLINE void tile_product_rows(int64_t rows, int64_t units, const uint32_t* a, const uint32_t* b, Tile tile) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_product_rows<Arith, kRows - 1>(rows, units, a, b, tile);
  }
  tile_product<Arith, kRows>(units, a, b, tile);
}

// --- the loops around it --------------------------------------------------------------------------------------------

template <class Arith>
void product(const ProductBlock& p) {
  const Lines a{static_cast<const char*>(p.a), p.a_row_stride * Arith::kElementBytes,
                p.a_col_stride * Arith::kElementBytes};
  const Lines b{static_cast<const char*>(p.b), p.b_col_stride * Arith::kElementBytes,
                p.b_row_stride * Arith::kElementBytes};
  const int64_t c_bytes = p.c_is_bf16 ? 2 : 4;
  // A sum that is rounded to bf16 is rounded once: its k is not cut.
  const int64_t all_units = (p.k + Arith::kPerUnit - 1) / Arith::kPerUnit;
  const int64_t block_units = p.c_is_bf16 || all_units <= 3 * kBlockUnits / 2 ? all_units : kBlockUnits;
  const int64_t scratch_units = block_units > 0 ? block_units : 1;
  const int64_t block_rows = round_up(smaller(p.m, kPanelAUnits / scratch_units + 1), kTileRows);
  const int64_t block_cols = round_up(smaller(p.n, kPanelBUnits / scratch_units + 1), kTileCols);
  uint32_t* panels_a = static_cast<uint32_t*>(kernel_scratch(4 * scratch_units * (block_rows + block_cols)));
  uint32_t* panels_b = panels_a + scratch_units * block_rows;

  for (int64_t col = 0; col < p.n; col += block_cols) {
    const int64_t cols = smaller(block_cols, p.n - col);
    for (int64_t unit = 0; unit < all_units || unit == 0; unit += scratch_units) {
      const int64_t k = unit * Arith::kPerUnit;
      const int64_t depth = smaller(block_units * Arith::kPerUnit, p.k - k),
                    units = smaller(block_units, all_units - unit);
      for (int64_t row = 0; row < p.m; row += block_rows) {
        const int64_t rows = smaller(block_rows, p.m - row);
        for (int64_t i = 0; i < rows; i += kTileRows) {
          pack_panel<Arith, kTileRows>(panels_a + i * units, {a.at(row + i, k), a.line_stride, a.k_stride},
                                       smaller(kTileRows, rows - i), depth);
        }
        for (int64_t j = 0; j < cols; j += kTileCols) {
          uint32_t* panel_b = panels_b + j * units;
          if (row == 0) {
            pack_panel<Arith, kTileCols>(panel_b, {b.at(col + j, k), b.line_stride, b.k_stride},
                                         smaller(kTileCols, cols - j), depth);
          }
          for (int64_t i = 0; i < rows; i += kTileRows) {
            const Tile tile{static_cast<char*>(p.c) + ((row + i) * p.c_row_stride + col + j) * c_bytes,
                            p.c_row_stride * c_bytes, smaller(kTileCols, cols - j), p.c_is_bf16,
                            p.accumulate || unit > 0};
            tile_product_rows<Arith>(smaller(kTileRows, rows - i), units, panels_a + i * units, panel_b, tile);
          }
        }
      }
    }
  }
}

#undef TEMPER_INLINE

}  // namespace
}  // namespace temper::backend
