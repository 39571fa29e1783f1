/* Matrix products that read weights as fast as memory delivers them, for a token, or a tile of a few tokens at a time:
 * see matvec.h. A block of threads computes the 16 rows of a panel. Its warps take chunks of the columns in turn; in
 * a warp, lanes are spread over columns and over parts of the rows, and each lane loads 16 bytes at a time. Sums are
 * put together in an order that depends on nothing but the number of columns: within a lane, over a warp's lanes, over
 * the warps. Where a product is followed by a sum, fmaf() says so: no compiler may choose, or tokens alone and in
 * batches would differ. A token that is still to be normalised is so in shared memory, by each block of threads, while
 * its first weights are on their way. */
#include "cuda/matvec.h"

#include "cuda/packed_panel.cuh"
#include "cuda/primitives.cuh"
#include "cuda/rmsnorm.cuh"
#include "cuda/swiglu.cuh"

namespace {

constexpr int warp_lanes = 32, n_warps = 8, most_products = 4, most_tokens = 4;
constexpr size_t most_normed_bytes = 46080; /* 10240 columns; with all else below 48 KB, which every GPU has */

/* What becomes of sums: y = sum, y += sum, or, of two matrices of one shape, y = silu(first sum) * second sum. */
enum ProductEnd { END_STORE, END_ADD, END_GATE };

/* Products of one launch: blocks of threads go over the panels of all of them. */
struct ProductBatch {
    CudaProduct products[most_products];
    unsigned first_panel[most_products]; /* of each product; a large number behind the last */
    CudaNorm norm;
    ProductEnd end;
};

/* What a block of threads computes. */
struct PanelTask {
    CudaMatrix w;
    const uint8_t *panel;
    const float *bias; /* (n_rows) or NULL */
    float *y;          /* (n_tokens, n_rows) from the first of its tokens on */
    const float *x;    /* (n_tokens, n_columns) */
    CudaNorm norm;     /* that x still needs */
    int n_tokens;
    size_t first_row;
};

/* Blocks that follow each other have the same panel, and other tokens: the second cache has it then. `tile` is 1 where
 * there is one token alone. */
__device__ __forceinline__ PanelTask find_task(const ProductBatch &batch, const float *x, size_t n_tokens, int tile) {
    unsigned n_tiles = tile == 1 ? 1 : (unsigned)((n_tokens + tile - 1) / tile), panel = blockIdx.x / n_tiles;
    int number = 0;
#pragma unroll
    for (int i = 1; i < most_products; i++)
        number += panel >= batch.first_panel[i];
    const CudaProduct &product = batch.products[number];
    size_t first_token = (size_t)(blockIdx.x % n_tiles) * tile;
    panel -= batch.first_panel[number];
    PanelTask task;
    task.w = product.w;
    task.panel = product.w.panels + (size_t)panel * product.w.panel_bytes;
    task.bias = product.bias;
    task.y = product.y + first_token * product.w.n_rows;
    task.x = x + first_token * product.w.n_columns;
    task.norm = batch.norm;
    task.n_tokens = n_tokens - first_token < (size_t)tile ? (int)(n_tokens - first_token) : tile;
    task.first_row = (size_t)panel * PANEL_ROWS;
    return task;
}

/* The second matrix of a gate: the same rows of it. */
__device__ __forceinline__ void turn_to_second(PanelTask &task, const ProductBatch &batch) {
    const CudaProduct &product = batch.products[1];
    task.panel = product.w.panels + task.first_row / PANEL_ROWS * product.w.panel_bytes;
    task.bias = product.bias;
    task.norm.gain = nullptr;
}

/* ---- Activations: in device memory, or of a token alone, normalised in shared memory */

static_assert(norm_threads == n_warps * warp_lanes);

/* In shared memory 16 bytes more for 32 columns, so that lanes which read different blocks reach different banks. */
template <bool NORMED> constexpr int block_floats = PACKED_BLOCK + (NORMED ? 4 : 0);

template <bool NORMED> __device__ __forceinline__ size_t place_of(size_t column) {
    return NORMED ? column / PACKED_BLOCK * block_floats<true> + column % PACKED_BLOCK : column;
}

/* Where a token's columns are, each at its place_of(). What is beyond the last token of a tile computes as that one
 * does, and is not written. */
template <bool NORMED> __device__ __forceinline__ const float *token_columns(const PanelTask &task, int token) {
    if constexpr (NORMED) {
        CUDA_DYNAMIC_SHARED(float, normed);
        return normed;
    } else {
        return task.x + (size_t)(token < task.n_tokens ? token : task.n_tokens - 1) * task.w.n_columns;
    }
}

/* By all threads of the block; not again for a gate's second matrix. */
template <bool NORMED> __device__ __forceinline__ void normalize_token(const PanelTask &task) {
    if constexpr (NORMED) {
        CUDA_DYNAMIC_SHARED(float, normed);
        unsigned n_columns = (unsigned)task.w.n_columns, first = 4 * threadIdx.x;
        float squares = 0;
        if (task.norm.gain == nullptr)
            return;
#pragma unroll 2
        for (unsigned i = first; i < n_columns; i += 4 * norm_threads) {
            float4 x = *reinterpret_cast<const float4 *>(task.x + i);
            float4 gain = *reinterpret_cast<const float4 *>(task.norm.gain + i);
            squares = add_squares(x, squares);
            *reinterpret_cast<float4 *>(normed + place_of<true>(i)) =
                make_float4(x.x * gain.x, x.y * gain.y, x.z * gain.z, x.w * gain.w);
        }
        float scale = norm_scale(squares, task.norm.eps, n_columns);
        for (unsigned i = first; i < n_columns; i += 4 * norm_threads) {
            float4 *four = reinterpret_cast<float4 *>(normed + place_of<true>(i)), x = *four;
            *four = make_float4(x.x * scale, x.y * scale, x.z * scale, x.w * scale);
        }
        __syncthreads(); /* x is normalised */
    }
}

/* Puts the lanes' sums together: a thread's is that of row `thread % 16` and token `thread / 16`, if there is such a
 * token. Lane l has rows l % parts * ROWS and following ones, of its columns. */
template <int N_TOKENS, int ROWS>
__device__ __forceinline__ float panel_sum(const PanelTask &task, float (&sums)[N_TOKENS][ROWS]) {
    constexpr int parts = PANEL_ROWS / ROWS;
    CUDA_SHARED(float, warp_sums, [n_warps][N_TOKENS][PANEL_ROWS]);
    int warp = (int)threadIdx.x / warp_lanes, lane = (int)threadIdx.x % warp_lanes;
#pragma unroll
    for (int t = 0; t < N_TOKENS; t++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float sum = sums[t][r];
#pragma unroll
            for (int mask = parts; mask < warp_lanes; mask *= 2)
                sum += warp_xor(sum, mask);
            if (lane < parts)
                warp_sums[warp][t][lane * ROWS + r] = sum;
        }
    __syncthreads();
    int token = (int)threadIdx.x / PANEL_ROWS, row = (int)threadIdx.x % PANEL_ROWS;
    if (token >= task.n_tokens || task.first_row + row >= task.w.n_rows)
        return 0;
    float sum = warp_sums[0][token][row];
#pragma unroll
    for (int i = 1; i < n_warps; i++)
        sum += warp_sums[i][token][row];
    return task.bias != nullptr ? sum + task.bias[task.first_row + row] : sum;
}

/* Whether all is done: a gate's first sums are kept for its second, in shared memory, for registers are scarce. */
__device__ __forceinline__ bool end_panel(PanelTask &task, const ProductBatch &batch, bool is_second, float sum) {
    CUDA_SHARED(float, first_sums, [n_warps * warp_lanes]);
    if (batch.end == END_GATE && !is_second) {
        first_sums[threadIdx.x] = sum;
        turn_to_second(task, batch);
        __syncthreads(); /* the sums of warps are read */
        return false;
    }
    int token = (int)threadIdx.x / PANEL_ROWS, row = (int)threadIdx.x % PANEL_ROWS;
    if (token < task.n_tokens && task.first_row + row < task.w.n_rows) {
        float *y = task.y + token * task.w.n_rows + task.first_row + row;
        *y = batch.end == END_ADD ? *y + sum : batch.end == END_GATE ? swiglu(first_sums[threadIdx.x], sum) : sum;
    }
    return true;
}

/* ---- Coded weights: a lane has a block of 32 columns of four rows, a warp 8 blocks */

constexpr int lane_rows = 4, row_lanes = PANEL_ROWS / lane_rows, warp_blocks = warp_lanes / row_lanes;

/* A lane's codes and scales, as they lie in memory. */
template <TensorType type> struct LaneBlock {
    using Panel = PackedPanel<type>;
    static constexpr int n_scales = Panel::scales == PACKED_FLOAT ? 4 : 2;

    uint32_t codes[lane_rows][Panel::bits];
    uint32_t scales[n_scales], minima[2];
    uint32_t factors[Panel::runs], min_factors[Panel::runs]; /* a byte for each row */
};

template <TensorType type>
__device__ __forceinline__ void load_block(LaneBlock<type> &to, const uint8_t *panel, size_t block, int part) {
    using Panel = PackedPanel<type>;
    const uint8_t *codes = Panel::block_codes(panel, block) + part * 16;
#pragma unroll
    for (int piece = 0; piece < Panel::bits; piece++) {
        uint4 words = load_16(codes + piece * PIECE_BYTES);
        to.codes[0][piece] = words.x;
        to.codes[1][piece] = words.y;
        to.codes[2][piece] = words.z;
        to.codes[3][piece] = words.w;
    }
    const uint8_t *scales = Panel::block_scales(panel, block);
    if constexpr (Panel::scales == PACKED_FLOAT) {
        uint4 words = load_16(scales + part * 16);
        to.scales[0] = words.x;
        to.scales[1] = words.y;
        to.scales[2] = words.z;
        to.scales[3] = words.w;
    } else {
        uint2 words = load_8(scales + part * 8);
        to.scales[0] = words.x;
        to.scales[1] = words.y;
    }
    if constexpr (Panel::has_minima) {
        uint2 words = load_8(Panel::block_minima(panel, block) + part * 8);
        to.minima[0] = words.x;
        to.minima[1] = words.y;
    }
    if constexpr (Panel::has_factors)
#pragma unroll
        for (int run = 0; run < Panel::runs; run++) {
            const uint8_t *factors = Panel::run_factors(panel, block, run) + part * 4;
            to.factors[run] = load_4(factors);
            if constexpr (Panel::has_minima)
                to.min_factors[run] = load_4(factors + PANEL_ROWS);
        }
}

/* The half of a row among two words of two. */
__device__ __forceinline__ float row_half(const uint32_t (&halves)[2], int row) {
    return row % 2 == 0 ? half2_low(halves[row / 2]) : half2_high(halves[row / 2]);
}

constexpr float byte_magic = 8388608.0f; /* 2^23: the last bit of a float of its exponent is 1 */

/* 2^23 + a byte of a word */
__device__ __forceinline__ float magic_byte(uint32_t word, int byte) {
    return f32_from_bits(byte_permute(word, 0x4b000000, 0x7440 + byte));
}

template <TensorType type>
__device__ __forceinline__ void run_scale(const LaneBlock<type> &block, int run, int row, float *scale,
                                          float *minimum) {
    using Panel = PackedPanel<type>;
    *minimum = 0;
    if constexpr (Panel::scales == PACKED_FLOAT) {
        *scale = f32_from_bits(block.scales[row]);
    } else {
        *scale = row_half({block.scales[0], block.scales[1]}, row);
        if constexpr (Panel::has_minima)
            *minimum = row_half(block.minima, row);
    }
    if constexpr (Panel::has_factors) {
        *scale *= magic_byte(block.factors[run] ^ 0x80808080, row) - (byte_magic + 128);
        if constexpr (Panel::has_minima)
            *minimum *= byte_magic - magic_byte(block.min_factors[run], row);
    }
}

/* Codes of up to 7 bits become 2 + code / 2^(bits - 1), by putting them at the head of a float's fraction: one
 * permutation of bytes. Such sums exceed those of code - bias by a multiple of the sum of x. Codes of 8 bits do not fit
 * between bytes there: they become code - bias, by a subtraction each. */
template <TensorType type> struct CodeFloats {
    using Panel = PackedPanel<type>;
    static constexpr bool is_shifted = Panel::bits < 8;
    static constexpr int up = is_shifted ? 7 - Panel::bits : 0;             /* where a code begins in its byte */
    static constexpr float unit = is_shifted ? 1 << (Panel::bits - 1) : 1;  /* what a float is to be multiplied with */
    static constexpr float shift = is_shifted ? 2 + Panel::bias / unit : 0; /* and what to be less before */

    static __device__ __forceinline__ float of_column(uint32_t codes, int column) {
        if constexpr (is_shifted)
            return f32_from_bits(byte_permute(codes, 0x40000000, 0x7044 + (column << 8)));
        else
            return magic_byte(codes, column) - (byte_magic + Panel::bias);
    }
};

/* Adds the products of a run of columns, of all tokens: `x` is that of the run. */
template <TensorType type, int N_TOKENS>
__device__ __forceinline__ void add_run(const LaneBlock<type> &block, int run, const float *(&x)[N_TOKENS],
                                        float (&sums)[N_TOKENS][lane_rows]) {
    using Panel = PackedPanel<type>;
    using Floats = CodeFloats<type>;
    float products[N_TOKENS][lane_rows] = {}, sum_x[N_TOKENS] = {};
#pragma unroll
    for (int i = 0; i < Panel::run / 4; i++) {
        int step = run * Panel::run / 4 + i;
        float4 xs[N_TOKENS];
#pragma unroll
        for (int t = 0; t < N_TOKENS; t++) {
            xs[t] = *reinterpret_cast<const float4 *>(x[t] + step * 4);
            if constexpr (Floats::is_shifted || Panel::has_minima)
                sum_x[t] += (xs[t].x + xs[t].y) + (xs[t].z + xs[t].w);
        }
#pragma unroll
        for (int r = 0; r < lane_rows; r++) {
            uint32_t codes = step_codes<Panel::bits, Floats::up>(block.codes[r], step);
            float w0 = Floats::of_column(codes, 0), w1 = Floats::of_column(codes, 1);
            float w2 = Floats::of_column(codes, 2), w3 = Floats::of_column(codes, 3);
#pragma unroll
            for (int t = 0; t < N_TOKENS; t++) {
                products[t][r] = fmaf(xs[t].x, w0, products[t][r]);
                products[t][r] = fmaf(xs[t].y, w1, products[t][r]);
                products[t][r] = fmaf(xs[t].z, w2, products[t][r]);
                products[t][r] = fmaf(xs[t].w, w3, products[t][r]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < lane_rows; r++) {
        float scale, minimum;
        run_scale(block, run, r, &scale, &minimum);
        scale *= Floats::unit;
#pragma unroll
        for (int t = 0; t < N_TOKENS; t++) {
            float sum = Floats::is_shifted ? fmaf(-Floats::shift, sum_x[t], products[t][r]) : products[t][r];
            sums[t][r] = fmaf(scale, sum, sums[t][r]);
            if constexpr (Panel::has_minima)
                sums[t][r] = fmaf(minimum, sum_x[t], sums[t][r]);
        }
    }
}

/* Goes on to the next chunk of the warp. */
template <TensorType type, bool NORMED, int N_TOKENS>
__device__ __forceinline__ void add_block(const LaneBlock<type> &block, const float *(&x)[N_TOKENS],
                                          float (&sums)[N_TOKENS][lane_rows]) {
#pragma unroll
    for (int run = 0; run < PackedPanel<type>::runs; run++)
        add_run(block, run, x, sums);
#pragma unroll
    for (int t = 0; t < N_TOKENS; t++)
        x[t] += n_warps * warp_blocks * block_floats<NORMED>;
}

/* Of a warp's last chunk, lanes may be without a block: they load the last one and leave it. A token alone waits for
 * memory: the next chunk is on its way while the warp works on one, and the barrier keeps the compiler from loading it
 * later. Several tokens need the registers. */
template <TensorType type, bool NORMED, int N_TOKENS>
__device__ __forceinline__ void sum_coded(const PanelTask &task, float (&sums)[N_TOKENS][lane_rows]) {
    int part = (int)threadIdx.x % row_lanes;
    unsigned n_blocks = (unsigned)(task.w.n_columns / PACKED_BLOCK), block = threadIdx.x / row_lanes;
    unsigned n_chunks = (n_blocks + warp_blocks - 1) / warp_blocks, chunk = threadIdx.x / warp_lanes;
    const float *block_x[N_TOKENS];
#pragma unroll
    for (int t = 0; t < N_TOKENS; t++)
        block_x[t] = token_columns<NORMED>(task, t) + block * block_floats<NORMED>;
    if constexpr (N_TOKENS > 1) {
        for (; block < n_blocks; block += n_warps * warp_blocks) {
            LaneBlock<type> now;
            load_block(now, task.panel, block, part);
            add_block<type, NORMED>(now, block_x, sums);
        }
    } else {
        LaneBlock<type> now, next;
        if (chunk < n_chunks)
            load_block(now, task.panel, block < n_blocks ? block : n_blocks - 1, part);
        normalize_token<NORMED>(task);
        for (; chunk < n_chunks; chunk += n_warps, block += n_warps * warp_blocks) {
            unsigned after = block + n_warps * warp_blocks;
            if (chunk + n_warps < n_chunks)
                load_block(next, task.panel, after < n_blocks ? after : n_blocks - 1, part);
            __syncwarp();
            if (block < n_blocks)
                add_block<type, NORMED>(now, block_x, sums);
            now = next;
        }
    }
}

template <TensorType type, int N_TOKENS, bool NORMED>
__global__ void __launch_bounds__(n_warps *warp_lanes)
    multiply_coded(ProductBatch batch, const float *x, size_t n_tokens) {
    PanelTask task = find_task(batch, x, n_tokens, N_TOKENS);
    for (bool is_second = false;; is_second = true) {
        float sums[N_TOKENS][lane_rows] = {};
        sum_coded<type, NORMED>(task, sums);
        if (end_panel(task, batch, is_second, panel_sum(task, sums)))
            return;
    }
}

/* ---- Weights without codes: a lane has one column of four or eight rows at a time */

/* The rows of 16 bytes, in F32. */
template <TensorType type, int ROWS> __device__ __forceinline__ void lane_floats(uint4 bytes, float (&rows)[ROWS]) {
    const uint32_t words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (type == TYPE_F32) {
            rows[i] = f32_from_bits(words[i]);
        } else if constexpr (type == TYPE_F16) {
            rows[2 * i] = half2_low(words[i]);
            rows[2 * i + 1] = half2_high(words[i]);
        } else {
            rows[2 * i] = bf16_to_f32((uint16_t)words[i]);
            rows[2 * i + 1] = f32_from_bits(words[i] & 0xffff0000);
        }
    }
}

template <TensorType type> constexpr int float_rows = type == TYPE_F32 ? 4 : 8; /* in 16 bytes */

/* What is loaded beyond the last column is zero. */
template <TensorType type, bool NORMED, int N_TOKENS>
__device__ __forceinline__ void sum_floats(const PanelTask &task, float (&sums)[N_TOKENS][float_rows<type>]) {
    constexpr int rows = float_rows<type>, size = 16 / rows, parts = PANEL_ROWS / rows;
    constexpr int columns = n_warps * warp_lanes / parts, unroll = 8; /* one of a thread's loads; loads in flight */
    size_t n_columns = task.w.n_columns, first = threadIdx.x / parts;
    size_t end = NORMED ? n_columns + first : n_columns; /* all threads normalise */
    const uint8_t *weights = task.panel + threadIdx.x % parts * 16;
    for (size_t column = first; column < end; column += unroll * columns) {
        uint4 loaded[unroll];
#pragma unroll
        for (int i = 0; i < unroll; i++)
            if (column + i * columns < n_columns)
                loaded[i] = load_16(weights + (column + i * columns) * PANEL_ROWS * size);
            else
                loaded[i] = make_uint4(0, 0, 0, 0);
        if (column == first)
            normalize_token<NORMED>(task);
#pragma unroll
        for (int i = 0; i < unroll; i++) {
            float w[rows];
            lane_floats<type>(loaded[i], w);
#pragma unroll
            for (int t = 0; t < N_TOKENS; t++) {
                const float *x = token_columns<NORMED>(task, t) + place_of<NORMED>(column);
                float value = column + i * columns < n_columns ? x[place_of<NORMED>(i * columns)] : 0;
#pragma unroll
                for (int r = 0; r < rows; r++)
                    sums[t][r] = fmaf(value, w[r], sums[t][r]);
            }
        }
    }
}

template <TensorType type, int N_TOKENS, bool NORMED>
__global__ void __launch_bounds__(n_warps *warp_lanes)
    multiply_floats(ProductBatch batch, const float *x, size_t n_tokens) {
    PanelTask task = find_task(batch, x, n_tokens, N_TOKENS);
    for (bool is_second = false;; is_second = true) {
        float sums[N_TOKENS][float_rows<type>] = {};
        sum_floats<type, NORMED>(task, sums);
        if (end_panel(task, batch, is_second, panel_sum(task, sums)))
            return;
    }
}

/* ---- Launching */

size_t token_bytes(size_t n_columns) {
    return (n_columns + PACKED_BLOCK - 1) / PACKED_BLOCK * block_floats<true> * sizeof(float);
}

template <int N_TOKENS, bool NORMED>
void launch(TensorType type, const ProductBatch &batch, unsigned n_panels, const float *x, size_t n_tokens,
            cudaStream_t stream) {
    dim3 grid(n_panels * (unsigned)((n_tokens + N_TOKENS - 1) / N_TOKENS)), block(n_warps * warp_lanes);
    size_t shared_bytes = NORMED ? token_bytes(batch.products[0].w.n_columns) : 0;
    switch (type) {
#define LAUNCH_CODED(type, bits, bias, run, scales)                                                                    \
    case type:                                                                                                         \
        CUDA_LAUNCH((multiply_coded<type, N_TOKENS, NORMED>), grid, block, shared_bytes, stream, batch, x, n_tokens);  \
        break;
#define LAUNCH_FLOATS(type)                                                                                            \
    case type:                                                                                                         \
        CUDA_LAUNCH((multiply_floats<type, N_TOKENS, NORMED>), grid, block, shared_bytes, stream, batch, x, n_tokens); \
        break;
        CODED_TYPES(LAUNCH_CODED)
        FLOAT_TYPES(LAUNCH_FLOATS)
#undef LAUNCH_CODED
#undef LAUNCH_FLOATS
    case TENSOR_TYPE_COUNT:
        break;
    }
}

} // namespace

static unsigned panels_of(const CudaMatrix *w) {
    return (unsigned)((w->n_rows + PANEL_ROWS - 1) / PANEL_ROWS);
}

static void launch_batch(TensorType type, const ProductBatch &batch, unsigned n_panels, const float *x, size_t n_tokens,
                         cudaStream_t stream) {
    if (n_tokens > 1)
        launch<most_tokens, false>(type, batch, n_panels, x, n_tokens, stream);
    else if (batch.norm.gain == nullptr)
        launch<1, false>(type, batch, n_panels, x, n_tokens, stream);
    else
        launch<1, true>(type, batch, n_panels, x, n_tokens, stream);
}

static void multiply(const CudaProduct *products, size_t n_products, ProductEnd end, CudaNorm norm, const float *x,
                     size_t n_tokens, cudaStream_t stream) {
    for (size_t begin = 0, n; begin < n_products; begin += n) {
        TensorType type = products[begin].w.type;
        ProductBatch batch = {};
        unsigned n_panels = 0;
        batch.norm = norm;
        batch.end = end;
        for (n = 0; n < most_products && begin + n < n_products && products[begin + n].w.type == type; n++) {
            batch.products[n] = products[begin + n];
            batch.first_panel[n] = n_panels;
            n_panels += panels_of(&products[begin + n].w);
        }
        for (size_t i = n; i < most_products; i++)
            batch.first_panel[i] = 0xffffffff;
        launch_batch(type, batch, n_panels, x, n_tokens, stream);
    }
}

extern "C" bool cuda_matvec_norms(size_t n_columns, size_t n_tokens) {
    return n_tokens == 1 && n_columns % 4 == 0 && token_bytes(n_columns) <= most_normed_bytes;
}

extern "C" void cuda_matvec(const CudaProduct *products, size_t n_products, CudaNorm norm, const float *x,
                            size_t n_tokens, cudaStream_t stream) {
    multiply(products, n_products, END_STORE, norm, x, n_tokens, stream);
}

extern "C" void cuda_matvec_add(const CudaProduct *product, const float *x, size_t n_tokens, cudaStream_t stream) {
    multiply(product, 1, END_ADD, {}, x, n_tokens, stream);
}

extern "C" bool cuda_matvec_gates(const CudaMatrix *gate, const CudaMatrix *up) {
    return gate->type == up->type && gate->n_rows == up->n_rows;
}

extern "C" void cuda_matvec_gate(const CudaProduct gate_up[2], CudaNorm norm, const float *x, size_t n_tokens,
                                 cudaStream_t stream) {
    ProductBatch batch = {};
    batch.norm = norm;
    batch.end = END_GATE;
    for (unsigned i = 0; i < most_products; i++)
        batch.first_panel[i] = i == 0 ? 0 : 0xffffffff; /* blocks are for the first */
    batch.products[0] = gate_up[0];
    batch.products[1] = gate_up[1];
    launch_batch(gate_up[0].w.type, batch, panels_of(&gate_up[0].w), x, n_tokens, stream);
}
