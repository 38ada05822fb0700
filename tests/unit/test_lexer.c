// SPDX-License-Identifier: Apache-2.0
/* CQL tokens, flush against a guard page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/lexer.h"
#include "unit/guard.h"

#define UUID "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

/* Tokens are written as a letter for the kind and the text: Nselect = name, "x" quoted as Qx, … separated by
 * blanks. */
static const struct {
	const char *name, *text, *tokens;
} cases[] = {
    {"nothing", "", "END"},
    {"blanks", " \t\r\n ", "END"},
    {"names", "SELECT a_1 FROM Ks.T", "NSELECT Na_1 NFROM NKs P. NT END"},
    {"quoted names", "\"Ab\" \"a\"\"b\" \"\" \"\"\"\"", "QAb Qa\"\"b Q Q\"\" END"},
    {"strings", "'a' 'it''s' '' ''''", "Sa Sit''s S S'' END"},
    {"dollar strings", "$$a'b$c$$ $$$$", "Sa'b$c S END"},
    {"quotes in other quotes", "'\"' \"'\" $$\"'--$$", "S\" Q' S\"'-- END"},
    {"numbers", "1 12.5 3. 1e5 1E-5 1.5e+10 007", "#1 #12.5 #3. #1e5 #1E-5 #1.5e+10 #007 END"},
    {"minus is a token", "-1 a-1 a -1", "P- #1 Na P- #1 Na P- #1 END"},
    {"ranges", "1..2 [..3]", "#1 P.. #2 P[ P.. #3 P] END"},
    {"durations", "1y2mo 12h30m 5\xc2\xb5s7ns", "#1y2mo #12h30m #5\xc2\xb5s7ns END"},
    {"units in any case, the longest", "1MO2M3Ms4US5Ns6S7D8h9w10Y", "#1MO2M3Ms4US5Ns6S7D8h9w10Y END"},
    {"a word behind a number", "1IF 2INSERT 3.IF 1.5IF 1e5IF 1E+5IF 3FROM", "#1 NIF #2 NINSERT #3. NIF #1.5 NIF #1e5 NIF #1E+5 NIF #3 NFROM END"},
    {"a word behind a duration", "1dIF 1moIF 1d2hIF 1\xc2\xb5sIF 1dWHERE", "#1d NIF #1mo NIF #1d2h NIF #1\xc2\xb5s NIF #1d NWHERE END"},
    {"no exponent and no unit", "1e 1eh 1u 1n 1_2 1d2 1.5d 1e5e5", "#1 Ne #1 Neh #1 Nu #1 Nn #1 BAD"},
    {"digits behind a unit", "1d2 1.5d 1e5e5 5d3IF", "#1d #2 #1.5 Nd #1e5 Ne5 #5d #3 NIF END"},
    {"a word behind a blob or a uuid", "0x01IF " UUID "IF", "Xx01 NIF U" UUID " NIF END"},
    {"blobs", "0xCAFE 0X 0xag", "XxCAFE XX Xxa Ng END"},
    {"uuid", UUID, "U" UUID " END"},
    {"uuid that begins with a letter", "f" UUID,
     "Nf6ba7b810 P- #9d Nad P- #11d #1 P- #80 Nb4 P- #00 Nc04fd430c8 END"},
    {"uuid of letters", "abcdefab-abcd-abcd-abcd-abcdefabcdef", "Uabcdefab-abcd-abcd-abcd-abcdefabcdef END"},
    {"uuid in brackets", "[" UUID "]", "P[ U" UUID " P] END"},
    {"almost a uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c",
     "#6 Nba7b810 P- #9d Nad P- #11d #1 P- #80 Nb4 P- #00 Nc04fd430c END"},
    {"almost a uuid, too", "6ba7b810-9dad-11d1-80b4-00c04fd430cg",
     "#6 Nba7b810 P- #9d Nad P- #11d #1 P- #80 Nb4 P- #00 Nc04fd430cg END"},
    {"binds", "? :a :\"B c\" {'x':?} {'x'::y}", "? :a :B c P{ Sx P: ? P} P{ Sx P: :y P} END"},
    {"a call as a map's value", "{a:now()}", "P{ Na :now P( P) P} END"},
    {"punctuation", "()[]{},;.:=+*/%<>", "P( P) P[ P] P{ P} P, P; P. P: P= P+ P* P/ P% P< P> END"},
    {"double punctuation", "+= -= <= >= != ..", "P+= P-= P<= P>= P!= P.. END"},
    {"comments", "a--b\nc//d\re/*f*/g", "Na Nc Ne Ng END"},
    {"comments to the end", "a --b", "Na END"},
    {"comment of two characters", "a --", "Na END"},
    {"comment with stars", "/***/a/**/b/* * / */", "Na Nb END"},
    {"no comment inside a string", "'--' '/*' x", "S-- S/* Nx END"},
    {"two minus signs are a comment", "1--1", "#1 END"},
    {"string that does not end", "a 'b", "Na BAD"},
    {"string that ends doubled", "'a''", "BAD"},
    {"name that does not end", "\"a", "BAD"},
    {"dollar string that does not end", "$$a$", "BAD"},
    {"one dollar", "a $b", "Na BAD"},
    {"comment that does not end", "a /* b *", "Na BAD"},
    {"comment of one bracket", "/*/", "BAD"},
    {"bind that does not end", ":\"a", "BAD"},
    {"exclamation mark", "a ! b", "Na BAD"},
    {"at sign", "@", "BAD"},
    {"beyond ASCII", "a \xc3\xa4", "Na BAD"},
    {"beyond ASCII in a string", "'\xc3\xa4'", "S\xc3\xa4 END"},
};

static const char letters[] = {
    [TOKEN_NAME] = 'N',	  [TOKEN_QUOTED] = 'Q',	    [TOKEN_STRING] = 'S',
    [TOKEN_NUMBER] = '#', [TOKEN_HEX] = 'X',	    [TOKEN_UUID] = 'U',
    [TOKEN_BIND] = 0,	  [TOKEN_NAMED_BIND] = ':', [TOKEN_PUNCT] = 'P',
};

static void describe(struct span text, char *to, size_t room)
{
	struct lexer l;
	struct token t;
	size_t n = 0, end = 0;

	lexer_init(&l, text);
	do {
		t = lexer_next(&l);
		assert_true(t.at >= end && t.at <= text.size);
		end = t.at;
		if (t.kind == TOKEN_END || t.kind == TOKEN_BAD)
			n += (size_t)snprintf(to + n, room - n, "%s", t.kind == TOKEN_END ? "END" : "BAD");
		else if (t.kind == TOKEN_BIND)
			n += (size_t)snprintf(to + n, room - n, "? ");
		else
			n += (size_t)snprintf(to + n, room - n, "%c%.*s ", letters[t.kind],
					      (int)t.text.size - (t.kind == TOKEN_HEX),
					      (const char *)t.text.data + (t.kind == TOKEN_HEX));
	} while (t.kind != TOKEN_END && t.kind != TOKEN_BAD);
	/* For ever. */
	assert_int_equal(lexer_next(&l).kind, t.kind);
	assert_int_equal(lexer_next(&l).kind, t.kind);
}

static void tokens(void **state)
{
	char got[512];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		print_message("%s\n", cases[i].name);
		describe(guard_text(cases[i].text), got, sizeof(got));
		assert_string_equal(got, cases[i].tokens);
	}
}

/* Cut anywhere, the text gives tokens and an end, and nothing is read behind it. */
static void every_prefix_ends(void **state)
{
	char got[512];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (size_t n = 0; n < strlen(cases[i].text); n++)
			describe(guard_bytes(cases[i].text, n), got, sizeof(got));
}

static void every_byte_is_classified(void **state)
{
	char got[64];

	(void)state;
	for (unsigned c = 0; c < 256; c++) {
		uint8_t byte = (uint8_t)c;
		describe(guard_bytes(&byte, 1), got, sizeof(got));
		bool good = strchr(" \t\r\n()[]{},;.:=+*/%<>?-", (int)c) || (c >= '0' && c <= '9') ||
			    (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		assert_int_equal(strcmp(got, "BAD") != 0, c && good);
	}
}

static void words_are_compared(void **state)
{
	struct lexer l;
	struct token t;

	(void)state;
	lexer_init(&l, guard_text("SeLeCt \"select\" selec"));
	t = lexer_next(&l);
	assert_true(token_is(&t, "select"));
	assert_false(token_is(&t, "selects"));
	assert_false(token_is(&t, "selec"));
	t = lexer_next(&l);
	assert_false(token_is(&t, "select"));
	t = lexer_next(&l);
	assert_false(token_is(&t, "select"));
	lexer_init(&l, (struct span){0});
	assert_int_equal(lexer_next(&l).kind, TOKEN_END);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(tokens),
	    cmocka_unit_test(every_prefix_ends),
	    cmocka_unit_test(every_byte_is_classified),
	    cmocka_unit_test(words_are_compared),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
