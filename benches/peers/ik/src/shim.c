/* The part of ik_llama.cpp's llama.h that main.rs calls: its structs are passed by value and change from version to
 * version, so the C compiler reads them. */
#include "llama.h"

static struct llama_model *model;
static struct llama_context *context;

static void silent(enum ggml_log_level level, const char *text, void *data) {
    (void)level, (void)text, (void)data;
}

/* 0, or which step failed. Called once. */
int ik_open(const char *path, uint32_t threads, uint32_t n_ctx, uint32_t batch, uint32_t ubatch, int flash_attn,
            int repack, int verbose) {
    if (!verbose) llama_log_set(silent, NULL);
    llama_backend_init();
    struct llama_model_params mp = llama_model_default_params();
    mp.repack_tensors = repack;
    /* As its own programs do: repacking writes into the tensors. */
    mp.use_mmap = !repack;
    mp.flash_attn = flash_attn;
    model = llama_model_load_from_file(path, mp);
    if (!model) return 1;
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = n_ctx;
    cp.n_batch = batch;
    cp.n_ubatch = ubatch;
    cp.n_threads = threads;
    cp.n_threads_batch = threads;
    cp.flash_attn = flash_attn;
    context = llama_init_from_model(model, cp);
    return context ? 0 : 2;
}

int ik_vocab(void) { return llama_n_vocab(model); }

int ik_encode(const char *text, int length, int32_t *ids, int room) {
    return llama_tokenize(model, text, length, ids, room, true, false);
}

int ik_process(int32_t *ids, int n, int position) {
    int status = llama_decode(context, llama_batch_get_one(ids, n, position, 0));
    llama_synchronize(context);
    return status;
}

const float *ik_logits(void) { return llama_get_logits_ith(context, -1); }

void ik_clear(void) { llama_kv_cache_seq_rm(context, -1, -1, -1); }

const char *ik_about(void) { return llama_print_system_info(); }
