/* proto/crypt against published vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "proto/crypt.h"

static void
sha1_of_known_texts(void **state UNUSED)
{
    static const uint8_t abc[20] = {0xA9, 0x99, 0x3E, 0x36, 0x47, 0x06, 0x81, 0x6A, 0xBA, 0x3E,
        0x25, 0x71, 0x78, 0x50, 0xC2, 0x6C, 0x9C, 0xD0, 0xD8, 0x9D}; /* FIPS 180-2, appendix A.1 */
    uint8_t out[20];
    assert_true(crypt_sha1(VIEW("abc"), out));
    assert_memory_equal(out, abc, 20);
    assert_true(crypt_sha1(VIEW(""), out));
    assert_int_equal(out[0], 0xDA);
}

/* RFC 4648 section 10. */
static void
base64_of_known_texts(void **state UNUSED)
{
    static const char *const rows[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
        {"\xFB\xFF\xFE", "+//+"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[CRYPT_BASE64_ROOM(6)];
        assert_int_equal(crypt_base64(out, view_str(rows[i][0])), strlen(rows[i][1]));
        assert_string_equal(out, rows[i][1]);
    }
}

static void
random_bytes_differ(void **state UNUSED)
{
    uint8_t a[16] = {0}, b[16] = {0};
    assert_true(crypt_random(a, sizeof a));
    assert_true(crypt_random(b, sizeof b));
    assert_memory_not_equal(a, b, sizeof a);
    assert_true(crypt_random(a, 0));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha1_of_known_texts),
        cmocka_unit_test(base64_of_known_texts),
        cmocka_unit_test(random_bytes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
