/* What the image commands share. */
#ifndef CIS_CLI_IMAGES_H
#define CIS_CLI_IMAGES_H

#include "cli/cli.h"
#include "cli/output.h"
#include "image/dir.h"
#include "image/image.h"
#include "image/source.h"
#include "image/write.h"

#define CLI_CODECS	"auto|raw|mask|lz4|zstd|deflate"
#define CLI_NO_LEVEL	UINT64_MAX
#define CLI_WORKERS_MAX 256

/**
 * cli_image_path() - the file that an IMAGE argument means
 *
 * A path when it has a slash or is a file here; else a name or the first digits
 * of an id in the image directory.  malloc'ed.
 */
int cli_image_path(const char *image, char **ret, struct cis_error *err);

/** cli_image_open() - the same, opened, with parents from the image directory, and read through cli_store. */
int cli_image_open(const char *image, struct cis_image **ret, struct cis_error *err);

#define CLI_OPTION_STORE                                                                                     \
	{                                                                                                    \
		"store", CLI_STRING, "LAYERS", "read through layers that fail, delay or corrupt, to try that", \
			&cli_store                                                                           \
	}
extern const char *cli_store; /* --store, or NULL */

/** cli_store_check() - is it what cistern-store-layers(7) has?  Return: CLI_OK, or CLI_USAGE after saying why not. */
int cli_store_check(void);

/** cli_medium - reads through cli_store, which was checked. */
extern const struct cis_image_medium cli_medium;

/** cli_image_print() - what `image show` prints, as text or JSON; @plan, borrowed, may be NULL.  Return: an
 * exit status. */
int cli_image_print(struct cis_image *img, json_t *plan);

/** struct cli_hot - what traces say is hot, for cis_write_opts; @pgno is malloc'ed */
struct cli_hot {
	uint32_t *pgno;
	uint64_t nr;
};

/**
 * cli_hot_merge() - one hot order of several traces
 * @page_shift: of the image to be; traces of the other size are converted
 *
 * Hot are the pages that at least half of the traces touched, ordered by their
 * mean position in those that did; ties go to the lower page number.
 * Return: 0, -ERANGE when a trace is of a guest of another size, or of the files.
 */
int cli_hot_merge(const struct cli_list *traces, uint64_t guest_bytes, unsigned page_shift,
		  struct cli_hot *ret, struct cis_error *err);

/** cli_producer_check() - refuse a diff that its producer is known to have corrupted; @producer, @state may
 * be NULL. */
int cli_producer_check(const char *producer, const void *state, size_t state_bytes, uint64_t guest_bytes,
		       struct cis_error *err);

/**
 * struct cli_codec_wish - what the command line says of the codec, and what comes of it
 * @dict: "on", "off" or "auto"
 */
struct cli_codec_wish {
	const char *codec;
	const char *dict;
	uint64_t level;
	bool has_level;
	uint64_t read_rate, install_rate; /* 0: measure */
	unsigned workers;
};

/** cli_check_level() - does @codec (NULL: none was named) have this level?  Return: CLI_OK, or CLI_USAGE
 * after saying why. */
int cli_check_level(const char *codec, uint64_t level);

/**
 * cli_codec_choose() - set codec and level in @opts, by the wish or by the planner
 * @image: what will be written; its folder is measured
 *
 * The planner prints its table and its reason, on stdout or into @ret_plan
 * (with --json).  Return: 0 or -errno.
 */
int cli_codec_choose(const struct cli_codec_wish *wish, struct cis_image_source *src, const char *image,
		     struct cis_write_opts *opts, json_t **ret_plan, struct cis_error *err);

/** cli_quota_room() - bytes that the quota leaves for an image at @path; UINT64_MAX outside the image
 * directory. */
int cli_quota_room(const char *path, uint64_t *ret_bytes, struct cis_error *err);

/**
 * cli_quota_refuse() - the refusal that names what to remove
 * @room: what the quota left, and @progress how far that went: so its length is estimated
 *
 * Return: -EDQUOT.
 */
int cli_quota_refuse(const char *path, uint64_t room, const struct cli_progress *progress,
		     struct cis_error *err);

#endif
