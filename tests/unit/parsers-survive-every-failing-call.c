/*
 * Each call that can fail under what reads bytes of others fails once: memory, opening, reading.  It is said with a reason, or does
 * not matter; nothing is lost, and no descriptor stays open.
 */
#include "image.h"

#include <elf.h>
#include <malloc.h>
#include <sys/mman.h>

#include "../points/fail.h"
#include "daemon/config.h"
#include "daemon/guest_note.h"
#include "daemon/sections.h"
#include "image/dir.h"
#include "image/trace.h"
#include "store/layers.h"
#include "vmm/handshake.h"

#define PAGES	   60
#define GUEST_BYTES (PAGES * (size_t)PAGE)

static uint8_t *memory;
static struct cis_codec_params *dict, *canned;
static const uint32_t hot[] = { 7, 3, 20, 21, 5 };

static int make_all(void **state)
{
	struct cis_write_opts opts = { .codec = CIS_CODEC_ZSTD_DICT, .chunk_shift = 12, .hot = hot, .nr_hot = 5, .state = "state",
				       .state_bytes = 5, .producer = "test" };
	struct cis_trace trace = { .page_shift = 12, .guest_bytes = GUEST_BYTES, .nr = 5, .pgno = (uint32_t *)hot };
	static const size_t sizes[PAGES] = { [0 ... PAGES - 1] = PAGE };
	struct cis_error err = { 0 };

	assert_int_equal(image_setup(state), 0);
	memory = image_memory(PAGES, 3);
	assert_int_equal(cis_codec_train(CIS_CODEC_ZSTD_DICT, memory, sizes, PAGES, 0, &dict, &err), 0);
	assert_int_equal(cis_codec_train(CIS_CODEC_DEFLATE_CANNED, memory, sizes, PAGES, 0, &canned, &err), 0);
	image_write_file(image_path("memory"), memory, GUEST_BYTES, true);
	assert_int_equal(image_create(image_path("memory"), image_path("parent"), opts, &err), 0);
	memory[4096] ^= 1;
	image_write_file(image_path("memory"), memory, GUEST_BYTES, true);
	opts = (struct cis_write_opts){ .codec = CIS_CODEC_DEFLATE_CANNED, .parent = image_open(image_path("parent")), .compare = 1 };
	assert_int_equal(image_create(image_path("memory"), image_path("child"), opts, &err), 0);
	cis_image_unref(opts.parent);
	return cis_trace_save(image_path("trace"), &trace, &err);
}

static int remove_all(void **state)
{
	free(memory);
	cis_codec_params_unref(dict);
	cis_codec_params_unref(canned);
	return image_teardown(state);
}

/* A core of one segment after its headers. */
static void make_core(const char *path)
{
	Elf64_Ehdr h = { .e_type = ET_CORE, .e_version = EV_CURRENT, .e_phentsize = sizeof(Elf64_Phdr), .e_phoff = sizeof(h),
			 .e_phnum = PN_XNUM, .e_shoff = sizeof(h) + sizeof(Elf64_Phdr), .e_shentsize = sizeof(Elf64_Shdr) };
	Elf64_Phdr p = { .p_type = PT_LOAD, .p_offset = PAGE, .p_filesz = GUEST_BYTES, .p_memsz = GUEST_BYTES };
	Elf64_Shdr s = { .sh_info = 1 };
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	memcpy(h.e_ident, ELFMAG, SELFMAG);
	h.e_ident[EI_CLASS] = ELFCLASS64;
	h.e_ident[EI_DATA] = ELFDATA2LSB;
	h.e_ident[EI_VERSION] = EV_CURRENT;
	assert_int_equal(write(fd, &h, sizeof(h)) + write(fd, &p, sizeof(p)) + write(fd, &s, sizeof(s)),
			 sizeof(h) + sizeof(p) + sizeof(s));
	assert_int_equal(pwrite(fd, memory, GUEST_BYTES, PAGE), GUEST_BYTES);
	close(fd);
}

/* What is tried: 0 and all is right, or -errno and a reason. */

static int read_pages(struct cis_image *img, struct cis_error *err)
{
	struct cis_image_reader *r;
	uint8_t page[PAGE];
	int rc = cis_image_reader_create(img, &r);

	if (rc)
		return cis_fail(err, -rc, "reader: %s", strerror(-rc));
	for (uint64_t i = 0; i < PAGES && !rc; i++) {
		rc = cis_image_read_page(r, i, page, err);
		assert_true(rc || !memcmp(page, memory + i * PAGE, PAGE));
	}
	cis_image_reader_destroy(r);
	return rc;
}

static int try_image(struct cis_error *err)
{
	struct cis_image *img;
	void *state = NULL;
	size_t len;
	int rc = cis_image_open(image_path("child"), NULL, &img, err);

	if (rc)
		return rc;
	rc = read_pages(img, err);
	if (!rc)
		rc = cis_image_verify(img, NULL, NULL, err);
	if (!rc)
		rc = cis_image_read_state(cis_image_info(img)->parent, &state, &len, err);
	assert_true(rc || !memcmp(state, "state", 5));
	free(state);
	cis_image_unref(img);
	return rc;
}

static int try_trace(struct cis_error *err)
{
	struct cis_trace t;
	int rc = cis_trace_load(image_path("trace"), &t, err);

	if (rc)
		return rc;
	assert_int_equal(t.nr, 5);
	assert_memory_equal(t.pgno, hot, sizeof(hot));
	cis_trace_fini(&t);
	return 0;
}

static int try_source(int (*source)(const char *, struct cis_image_source **, struct cis_error *), const char *path,
		      struct cis_error *err)
{
	struct cis_image_source *src;
	uint64_t start, end, at = 0;
	uint8_t page[PAGE];
	int rc = source(path, &src, err);

	if (rc)
		return rc;
	assert_int_equal(src->guest_bytes, GUEST_BYTES);
	while (!(rc = src->next_data(src, at, &start, &end, err)))
		for (at = start; at < end; at += PAGE) {
			rc = src->read(src, at, page, PAGE, err);
			if (rc)
				goto out;
			assert_memory_equal(page, memory + at, PAGE);
		}
	if (rc == -ENXIO)
		rc = 0;
out:
	cis_source_close(src);
	return rc;
}

static int try_core(struct cis_error *err)
{
	return try_source(cis_source_elf, image_path("core"), err);
}

static int try_raw(struct cis_error *err)
{
	return try_source(cis_source_raw, image_path("memory"), err);
}

static int try_folder(struct cis_error *err)
{
	const struct cis_dir_entry *e;
	struct cis_dir dir;
	int rc = cis_dir_scan(image_folder, &dir, err);

	if (rc)
		return rc;
	assert_int_equal(dir.nr, 2);
	assert_int_equal(cis_dir_find(&dir, "child", &e, err), 0);
	cis_dir_fini(&dir);
	return 0;
}

static int try_layers(struct cis_error *err)
{
	struct cis_layers *layers;
	int rc = cis_layers_parse("fault:every=3,trigger=/x+delay:p50=1ms,p99=2ms", &layers, err);

	if (!rc)
		cis_layers_unref(layers);
	return rc;
}

static int try_config(struct cis_error *err)
{
	struct cis_config c;
	int rc = cis_config_init(&c);

	if (rc)
		return cis_fail(err, -rc, "config: %s", strerror(-rc));
	rc = cis_config_load(&c, image_path("config"), err);
	assert_true(rc || !strcmp(c.traces, "/t"));
	cis_config_fini(&c);
	return rc;
}

static int try_handshake(struct cis_error *err)
{
	static const char text[] = "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0}]";
	struct cis_handshake *hs;
	bool done = false;
	int rc = cis_handshake_create(&hs);

	if (rc)
		return cis_fail(err, -rc, "handshake: %s", strerror(-rc));
	rc = cis_handshake_feed(hs, text, strlen(text), &done, err);
	assert_true(rc || (done && cis_handshake_layout(hs)->nr_regions == 1));
	cis_handshake_destroy(hs);
	return rc;
}

static int try_note(struct cis_error *err)
{
	static const char text[] =
		"{\"version\":1,\"id\":\"a\",\"serial\":5,\"image\":\"/i\",\"image_id\":"
		"\"abababababababababababababababababababababababababababababababab\",\"socket\":\"/s\",\"kind\":\"client\",\"store\":\"\","
		"\"state\":\"filled\",\"policy\":\"kill\",\"fill\":\"hot\",\"record\":false,\"acked\":true,\"in_place\":false,"
		"\"stalled\":false,\"stream_bytes\":0,\"fds\":0}";
	struct cis_guest_note *note;
	int rc = cis_guest_note_parse(text, strlen(text), &note, err);

	if (rc)
		return rc;
	assert_string_equal(note->socket, "/s");
	cis_guest_note_destroy(note);
	return 0;
}

static int try_sections(struct cis_error *err)
{
	struct cis_sections s = { 0 };
	void *bytes = NULL;
	size_t len;
	int fd, rc;

	cis_sections_add(&s, 1, 0, "hello", 5);
	rc = cis_sections_seal(&s, "sections", &fd);
	cis_sections_fini(&s);
	if (rc)
		return cis_fail(err, -rc, "sections: %s", strerror(-rc));
	rc = cis_sections_load(fd, true, &bytes, &len, err);
	assert_true(rc || !memcmp(bytes, "CISSECT1", 8));
	free(bytes);
	close(fd);
	return rc;
}

static int try_codec(enum cis_codec codec, struct cis_codec_params *params, struct cis_error *err)
{
	uint8_t stored[2 * PAGE], back[PAGE];
	struct cis_encoder *enc;
	struct cis_decoder *dec;
	enum cis_codec used;
	int rc = cis_encoder_create(codec, 0, PAGE, params, &enc, err);

	if (rc)
		return rc;
	size_t len = cis_encode(enc, memory + 5 * PAGE, PAGE, stored, &used);

	cis_encoder_destroy(enc);
	rc = cis_decoder_create(PAGE, params, &dec);
	if (rc)
		return cis_fail(err, -rc, "decoder: %s", strerror(-rc));
	rc = cis_decode(dec, used, stored, len, back, PAGE);
	cis_decoder_destroy(dec);
	assert_true(rc == -ENOMEM || (!rc && !memcmp(back, memory + 5 * PAGE, PAGE)));
	return rc ? cis_fail(err, -rc, "decode: %s", strerror(-rc)) : 0;
}

/* As an image's metadata has them. */
static int try_params(struct cis_error *err)
{
	const void *bytes[2];
	size_t len[2];
	struct cis_codec_params *params;

	bytes[0] = cis_codec_params_bytes(dict, CIS_CODEC_ZSTD_DICT, &len[0]);
	bytes[1] = cis_codec_params_bytes(canned, CIS_CODEC_DEFLATE_CANNED, &len[1]);
	int rc = cis_codec_params_load(bytes[0], len[0], bytes[1], len[1], &params, err);

	if (!rc)
		cis_codec_params_unref(params);
	return rc;
}

static int try_codecs(struct cis_error *err)
{
	int rc = 0;

	for (unsigned codec = 0; codec < CIS_CODEC_COUNT && !rc; codec++)
		if (codec != CIS_CODEC_SAME) /* that is not asked for, but found */
			rc = try_codec((enum cis_codec)codec, codec == CIS_CODEC_ZSTD_DICT ? dict : canned, err);
	return rc;
}

/* Return: whether there was an @nth call, to fail. */
static bool fails_well(int (*try)(struct cis_error *err), long nth)
{
	struct cis_error err = { 0 };
	bool failed;
	int rc;

	fail_at(nth);
	rc = try(&err);
	failed = fail_has();
	fail_at(0);
	if (rc && (!failed || rc != -err.code || !err.text[0]))
		fail_msg("call %ld: %d, but '%s' of %d", nth, rc, err.text, err.code);
	return failed;
}

/* What the allocator keeps for itself is there after a few rounds; what is lost gets more with each. */
#define ROUNDS 8

static void survives(int (*try)(struct cis_error *err))
{
	size_t fds = check_open_fds(), bytes = 0;
	long nth = 0;
	bool failed;

	do {
		nth++;
		for (unsigned i = 0; i < 2 * ROUNDS; i++) {
			failed = fails_well(try, nth);
			if (i == ROUNDS)
				bytes = mallinfo2().uordblks;
		}
		if (mallinfo2().uordblks != bytes)
			fail_msg("call %ld: %zd bytes are lost", nth, (ssize_t)(mallinfo2().uordblks - bytes));
		assert_int_equal(check_open_fds(), fds);
	} while (failed);
	assert_true(nth > 1);
}

#define SURVIVES(name)                                   \
	static void test_##name(void **state)            \
	{                                                \
		survives(try_##name);                    \
	}

SURVIVES(image)
SURVIVES(trace)
SURVIVES(raw)
SURVIVES(folder)
SURVIVES(layers)
SURVIVES(handshake)
SURVIVES(note)
SURVIVES(sections)
SURVIVES(codecs)
SURVIVES(params)

static void test_core(void **state)
{
	make_core(image_path("core"));
	survives(try_core);
	unlink(image_path("core"));
}

static void test_config(void **state)
{
	static const char text[] = "traces = /t\nkeep = off\nstore_layers = fault:every=2\n";

	image_write_file(image_path("config"), (const uint8_t *)text, sizeof(text) - 1, false);
	survives(try_config);
	unlink(image_path("config"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_image),	cmocka_unit_test(test_trace),	  cmocka_unit_test(test_core),
		cmocka_unit_test(test_raw),	cmocka_unit_test(test_folder),	  cmocka_unit_test(test_layers),
		cmocka_unit_test(test_config),	cmocka_unit_test(test_handshake), cmocka_unit_test(test_note),
		cmocka_unit_test(test_sections), cmocka_unit_test(test_codecs),	  cmocka_unit_test(test_params),
	};

	return cmocka_run_group_tests(tests, make_all, remove_all);
}
