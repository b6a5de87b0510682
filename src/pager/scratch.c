#include "pager/scratch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "os/memfd.h"

#define BLOCK	    4096u
#define SMALL_BYTES ((size_t)64 << 10)

static const unsigned out_max[2] = { 512, 24 };
static const unsigned free_max[2] = { 256, 8 }; /* 16 MiB each; what a burst took beyond that goes back to the kernel */

int cis_scratch_create(struct cis_scratch **ret)
{
	struct cis_scratch *s = calloc(1, sizeof(*s));
	void *raw = NULL, *zero = NULL;
	int err;

	if (!s)
		return -ENOMEM;
	err = cis_buffer_alloc(CIS_SPAN_MAX, &raw);
	if (!err)
		err = cis_buffer_alloc(CIS_SPAN_MAX, &zero);
	if (err) {
		cis_memfd_unmap(raw, CIS_SPAN_MAX);
		free(s);
		return err;
	}
	s->raw = raw;
	s->zero = zero;
	*ret = s;
	return 0;
}

static void free_buf(struct cis_iobuf *buf)
{
	cis_memfd_unmap(buf->data, buf->bytes);
	free(buf);
}

void cis_scratch_destroy(struct cis_scratch *s)
{
	if (!s)
		return;
	for (int class = 0; class < 2; class++)
		while (s->free[class]) {
			struct cis_iobuf *buf = s->free[class];

			s->free[class] = buf->next;
			free_buf(buf);
		}
	for (size_t i = 0; i < sizeof(s->decoder) / sizeof(s->decoder[0]); i++)
		cis_decoder_destroy(s->decoder[i].dec);
	for (size_t i = 0; i < CIS_CODEC_COUNT; i++)
		cis_encoder_destroy(s->encoder[i]);
	free(s->value);
	cis_memfd_unmap(s->raw, CIS_SPAN_MAX);
	cis_memfd_unmap((void *)s->zero, CIS_SPAN_MAX);
	free(s);
}

static int class_of(size_t bytes)
{
	return bytes > SMALL_BYTES;
}

struct cis_iobuf *cis_scratch_get(struct cis_scratch *s, size_t bytes)
{
	int class = class_of(bytes);
	struct cis_iobuf *buf = s->free[class];
	void *data;

	assert(bytes <= CIS_SPAN_MAX);
	if (buf) {
		s->free[class] = buf->next;
		s->nr_free[class]--;
		s->nr_out[class]++;
		return buf;
	}
	buf = malloc(sizeof(*buf));
	if (!buf)
		return NULL;
	buf->bytes = (class ? CIS_SPAN_MAX : SMALL_BYTES) + 2 * BLOCK;
	if (cis_buffer_alloc(buf->bytes, &data)) {
		free(buf);
		return NULL;
	}
	buf->data = data;
	s->nr_out[class]++;
	return buf;
}

unsigned cis_scratch_left(const struct cis_scratch *s, size_t bytes)
{
	int class = class_of(bytes);

	return s->nr_out[class] < out_max[class] ? out_max[class] - s->nr_out[class] : 0;
}

void cis_scratch_put(struct cis_scratch *s, struct cis_iobuf *buf)
{
	int class = class_of(buf->bytes - 2 * BLOCK);

	s->nr_out[class]--;
	if (s->nr_free[class] == free_max[class]) {
		free_buf(buf);
		return;
	}
	s->nr_free[class]++;
	buf->next = s->free[class];
	s->free[class] = buf;
}

struct cis_decoder *cis_scratch_decoder(struct cis_scratch *s, const struct cis_image *img)
{
	struct cis_codec_params *params = img ? cis_image_params(img) : NULL;
	const size_t n = sizeof(s->decoder) / sizeof(s->decoder[0]);
	struct cis_decoder *dec;

	for (size_t i = 0; i < n; i++)
		if (s->decoder[i].dec && s->decoder[i].params == params)
			return s->decoder[i].dec;
	if (cis_decoder_create(CIS_SPAN_MAX, params, &dec))
		return NULL;
	cis_decoder_destroy(s->decoder[s->next_decoder].dec);
	s->decoder[s->next_decoder].params = params;
	s->decoder[s->next_decoder].dec = dec;
	s->next_decoder = (s->next_decoder + 1) % n;
	return dec;
}

struct cis_encoder *cis_scratch_encoder(struct cis_scratch *s, enum cis_codec codec)
{
	if (!s->value)
		s->value = malloc(BLOCK);
	if (s->value && !s->encoder[codec] && cis_encoder_create(codec, 0, BLOCK, NULL, &s->encoder[codec], NULL))
		s->encoder[codec] = NULL;
	return s->value ? s->encoder[codec] : NULL;
}
