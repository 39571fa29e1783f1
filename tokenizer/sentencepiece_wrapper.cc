/* See sentencepiece_wrapper.h. Models are checked by sentencepiece_model.h before the library parses them. */
#include <sentencepiece_processor.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

extern "C" {
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/sentencepiece_wrapper.h"
}

/* Exported by the library, declared in none of its public headers. */
namespace sentencepiece {
namespace logging {
void SetMinLogLevel(int level);
}
} // namespace sentencepiece

struct SentencePiece {
    sentencepiece::SentencePieceProcessor processor;
    SentencePieceFacts facts;
};

namespace {

constexpr int LOG_LEVEL_FATAL = 3;

/* Runs `body`, which returns 0 or an error code, and turns an exception into one. */
template <typename Body> int guard(const char *name, Error *error, Body body) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return error_set(error, ERROR_MEMORY, "%s: out of memory in SentencePiece; close other programs", name);
    } catch (const std::exception &exception) {
        return error_set(error, ERROR_FORMAT,
                         "%s: SentencePiece failed (%s); use the tokenizer that came with the checkpoint", name,
                         exception.what());
    } catch (...) {
        return error_set(error, ERROR_FORMAT,
                         "%s: SentencePiece failed; use the tokenizer that came with the checkpoint", name);
    }
}

int load(SentencePiece **out, StringView proto, const char *name, Error *error) {
    auto sp = std::make_unique<SentencePiece>();
    int code = sentencepiece_model_check(proto, name, &sp->facts, error);
    if (code < 0)
        return code;
    sentencepiece::logging::SetMinLogLevel(LOG_LEVEL_FATAL);
    const auto status = sp->processor.LoadFromSerializedProto({proto.bytes, proto.length});
    if (!status.ok())
        return error_set(error, ERROR_FORMAT,
                         "%s: SentencePiece refuses the model (%s); give the tokenizer that came with the checkpoint",
                         name, status.error_message());
    if (size_t(sp->processor.GetPieceSize()) != sp->facts.n_pieces)
        return error_set(error, ERROR_FORMAT, "%s: SentencePiece reads %d of %zu pieces; copy the file again", name,
                         sp->processor.GetPieceSize(), sp->facts.n_pieces);
    *out = sp.release();
    return 0;
}

} // namespace

int sentencepiece_open_proto(SentencePiece **out, StringView proto, const char *name, Error *error) {
    *out = nullptr;
    return guard(name, error, [&] { return load(out, proto, name, error); });
}

void sentencepiece_free(SentencePiece *sp) {
    delete sp;
}

size_t sentencepiece_n_pieces(const SentencePiece *sp) {
    return sp->facts.n_pieces;
}

bool sentencepiece_adds_dummy_prefix(const SentencePiece *sp) {
    return sp->facts.add_dummy_prefix;
}

StringView sentencepiece_piece(const SentencePiece *sp, int32_t id) {
    const std::string &piece = sp->processor.IdToPiece(id);
    return StringView{piece.data(), piece.size()};
}

/* The processor does not tell user-defined pieces from normal ones. */
TokenType sentencepiece_type(const SentencePiece *sp, int32_t id) {
    const auto &processor = sp->processor;
    return processor.IsUnknown(id)   ? TOKEN_UNKNOWN
           : processor.IsControl(id) ? TOKEN_CONTROL
           : processor.IsUnused(id)  ? TOKEN_UNUSED
           : processor.IsByte(id)    ? TOKEN_BYTE
                                     : TOKEN_NORMAL;
}

int32_t sentencepiece_bos(const SentencePiece *sp) {
    return sp->processor.bos_id();
}

int32_t sentencepiece_eos(const SentencePiece *sp) {
    return sp->processor.eos_id();
}

int sentencepiece_encode(const SentencePiece *sp, StringView text, TokenList *out, Error *error) {
    return guard("text", error, [&] {
        std::vector<int> ids;
        const auto status = sp->processor.Encode({text.bytes, text.length}, &ids);
        if (!status.ok())
            return error_set(error, ERROR_ARGUMENT,
                             "SentencePiece cannot encode a text of %zu bytes (%s); give it in smaller parts",
                             text.length, status.error_message());
        for (int id : ids) {
            int code = token_list_append(out, id, error);
            if (code < 0)
                return code;
        }
        return 0;
    });
}
