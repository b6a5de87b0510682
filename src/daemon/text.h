/* Texts that come from anywhere, as JSON. */
#ifndef CIS_DAEMON_TEXT_H
#define CIS_DAEMON_TEXT_H

#include <jansson.h>

/**
 * cis_text_json() - a string of it
 *
 * A message may name a file or a path of a request in any bytes, or have been cut in the middle of a character; jansson
 * takes UTF-8 alone, and a message that is not there helps nobody.  What is not UTF-8 becomes '?'.
 */
json_t *cis_text_json(const char *text);

#endif
