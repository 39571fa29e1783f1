/* Chat templates' Jinja against Jinja2 (cases from the fixture maker): templates in the manner of many models', single
 * expressions, what is refused and how it is named; where each byte comes from; limits; damaged templates. */
#include "base/random.h"
#include "jinja/jinja.h"
#include "tests/vocabulary_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_MESSAGES = 8, MUTATIONS = 60, HANG_SECONDS = 600 };

static const struct tm DATE = {.tm_year = 125, .tm_mon = 2, .tm_mday = 9, .tm_wday = 0, .tm_yday = 67};

static JinjaInput input_of(const JinjaMessage *messages, size_t n_messages) {
    return (JinjaInput){messages, n_messages, true, sv("<s>"), sv("</s>"), DATE};
}

static int render(StringView jinja, const JinjaInput *input, JinjaOutput *out, Error *error) {
    JinjaTemplate *template;
    *out = (JinjaOutput){0};
    *error = (Error){0};
    if (jinja_parse(&template, jinja, error) < 0)
        return error->code;
    int status = jinja_render(template, input, out, error);
    jinja_template_free(template);
    return status;
}

static StringView string_of(const cJSON *json) {
    return sv(cJSON_IsString(json) ? json->valuestring : "");
}

/* NULL where the fixtures are not there: skip the test. */
static cJSON *read_cases(void) {
    char directory[4096];
    const char *fixtures = getenv("STOWKV_FIXTURES");
    if (fixtures == NULL || fixtures[0] == '\0') {
        fprintf(stderr,
                "SKIPPED: STOWKV_FIXTURES is not set; it names the directory of what the fixture maker wrote\n");
        return NULL;
    }
    snprintf(directory, sizeof directory, "%s/jinja", fixtures);
    return read_json(directory, "cases.json");
}

/* cJSON ends texts at a NUL; in the cases, U+2400 stands for it. */
static char *with_nuls(const char *text, size_t *length) {
    static const char MARK[] = "\xE2\x90\x80";
    char *out = malloc(strlen(text) + 1);
    assert_non_null(out);
    *length = 0;
    for (const char *at = text; *at != '\0'; at++) {
        bool nul = strncmp(at, MARK, 3) == 0;
        out[(*length)++] = nul ? '\0' : *at;
        at += nul ? 2 : 0;
    }
    return out;
}

static int render_case(const cJSON *item, const cJSON *templates, JinjaOutput *got, Error *error) {
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(item, "jinja"), *message;
    const char *name = string_of(cJSON_GetObjectItemCaseSensitive(item, "name")).bytes;
    StringView jinja = string_of(cJSON_IsString(text) ? text : cJSON_GetObjectItemCaseSensitive(templates, name));
    JinjaMessage messages[MAX_MESSAGES];
    size_t n = 0;
    cJSON_ArrayForEach(message, cJSON_GetObjectItemCaseSensitive(item, "messages")) {
        assert_true(n < MAX_MESSAGES);
        messages[n].role = string_of(cJSON_GetArrayItem(message, 0));
        size_t length;
        char *content = with_nuls(cJSON_GetArrayItem(message, 1)->valuestring, &length);
        messages[n++].content = (StringView){content, length};
    }
    JinjaInput input = input_of(messages, n);
    int status = render(jinja, &input, got, error);
    for (size_t i = 0; i < n; i++)
        free((char *)messages[i].content.bytes);
    return status;
}

static bool is_text(const JinjaOutput *got, const char *rendered) {
    size_t length;
    char *wanted = with_nuls(rendered, &length);
    bool same = length == got->length && memcmp(wanted, got->bytes, length) == 0;
    free(wanted);
    return same;
}

static void check_case(const cJSON *item, const cJSON *templates) {
    const cJSON *rendered = cJSON_GetObjectItemCaseSensitive(item, "rendered");
    const cJSON *refused = cJSON_GetObjectItemCaseSensitive(item, "refused");
    const char *name = string_of(cJSON_GetObjectItemCaseSensitive(item, "name")).bytes;
    const char *jinja = string_of(cJSON_GetObjectItemCaseSensitive(item, "jinja")).bytes;
    JinjaOutput got;
    Error error;
    int status = render_case(item, templates, &got, &error);
    if (cJSON_IsString(refused)) {
        if (status == 0 || strstr(error.message, refused->valuestring) == NULL)
            fail_msg("%s: is not refused for %s: %s", jinja, refused->valuestring, error.message);
    } else if (!cJSON_IsString(rendered)) {
        if (status == 0)
            fail_msg("%s %s: Jinja2 fails, and here it is %.*s", name, jinja, (int)got.length, got.bytes);
    } else if (status < 0) {
        fail_msg("%s %s: %s", name, jinja, error.message);
    } else if (!is_text(&got, rendered->valuestring)) {
        fail_msg("%s %s: rendered as\n%.*s\nand by Jinja2 as\n%s", name, jinja, (int)got.length, got.bytes,
                 rendered->valuestring);
    }
    jinja_output_free(&got);
}

static void test_against_jinja2(void **state) {
    (void)state;
    cJSON *json = read_cases();
    if (json == NULL)
        skip();
    const cJSON *item, *templates = cJSON_GetObjectItemCaseSensitive(json, "templates");
    int n = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "cases")) {
        check_case(item, templates);
        n++;
    }
    assert_true(cJSON_GetArraySize(templates) >= 20 && n >= 400);
    cJSON_Delete(json);
}

/* Messages of private-use characters alone: a byte is theirs where it is part of one, whatever the template did. */
static void check_origins(StringView jinja) {
    static const JinjaMessage messages[] = {{{"system", 6}, {"\xEE\x80\x80\xEE\x80\x81", 6}},
                                            {{"user", 4}, {"\xEE\x80\x82\xEE\x80\x83", 6}},
                                            {{"assistant", 9}, {"\xEE\x80\x84", 3}},
                                            {{"user", 4}, {"\xEE\x80\x85\xEE\x80\x86", 6}}};
    JinjaInput input = input_of(messages, 4);
    JinjaOutput got;
    Error error;
    if (render(jinja, &input, &got, &error) < 0) { /* a template without system messages */
        input = input_of(messages + 1, 3);
        if (render(jinja, &input, &got, &error) < 0)
            fail_msg("%.*s: %s", SV_ARGS(jinja), error.message);
    }
    size_t n_theirs = 0, left = 0;
    for (size_t i = 0; i < got.length; i++) {
        left = left > 0 ? left - 1 : got.length - i >= 3 && memcmp(got.bytes + i, "\xEE\x80", 2) == 0 ? 3 : 0;
        left -= left == 3;
        bool theirs = left > 0 || (i >= 2 && memcmp(got.bytes + i - 2, "\xEE\x80", 2) == 0);
        if (theirs != (got.from_message[i] != 0))
            fail_msg("%.*s: byte %zu is taken for %s", SV_ARGS(jinja), i, theirs ? "markup" : "a message's");
        n_theirs += theirs;
    }
    assert_true(n_theirs >= 6);
    jinja_output_free(&got);
}

static void test_origin_of_each_byte(void **state) {
    (void)state;
    static const char *const TEXTS[] = {
        "{% set c = messages[1].content %}<{{ c }}>{{ c|trim }}{{ c ~ 'x' }}{{ 'a' + c + 'b' }}{{ c[1:] }}{{ c[::-1] "
        "}}{{ c[0] }}",
        "{% set c = '-' ~ messages[1].content ~ '-' %}{{ c.strip('-') }}{{ c.split('-')|join('+') }}{{ c|replace('-', "
        "'=') }}",
        "{% set c = messages[1].content %}{{ 'a-a'|replace('-', c) }}{{ c|tojson }}{{ [c, c]|join(c) }}{{ c|list|first "
        "}}{{ c|string }}",
        "{% set x %}<{{ messages[1].content }}>{% endset %}{{ x }}{% macro f(a) %}[{{ a }}]{% endmacro %}{{ f(x) }}{{ "
        "messages|map(attribute='content')|join }}",
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + m.role + ': ' + m['content'] %}{% "
        "endfor %}{{ ns.s }}",
        "{% for c in messages[1].content %}{{ c }}.{% endfor %}{{ messages[1].content|safe }}{{ messages[1].content or "
        "'' }}{{ messages[1].get('content') }}",
    };
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
        check_origins(sv(TEXTS[i]));
    JinjaInput input = input_of(&(JinjaMessage){sv("user"), sv("ab")}, 1); /* whose case can be changed */
    JinjaOutput got;
    Error error;
    assert_int_equal(render(sv("<{{ messages[0].content|upper }}>"), &input, &got, &error), 0);
    assert_int_equal(got.length, 4);
    assert_memory_equal(got.from_message, "\0\1\1\0", 4);
    jinja_output_free(&got);
    cJSON *json = read_cases();
    const cJSON *item;
    if (json == NULL)
        skip();
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "templates")) {
        check_origins(string_of(item));
    }
    cJSON_Delete(json);
}

/* What strangers may send to keep a program busy, fill its memory or its stack. */
static void test_limits(void **state) {
    (void)state;
    static const char *const TEXTS[] = {
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ range(999999999)|length }}",
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor "
        "%}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ f(n + 1) ~ f(n + 1) if n < 20 }}{% endmacro %}{{ f(0) }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l == ns.l }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l|tojson }}",
    };
    JinjaInput input = input_of(&(JinjaMessage){sv("user"), sv("a")}, 1);
    JinjaOutput got;
    Error error;
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        assert_int_equal(render(sv(TEXTS[i]), &input, &got, &error), ERROR_UNSUPPORTED);
        assert_non_null(strstr(error.message, "than"));
    }
    static const char *const DEEP[] = {"(", "[", "not ", "{'a':", "-", "x(", "x[", "'a' if "};
    for (size_t i = 0; i < sizeof DEEP / sizeof *DEEP; i++) {
        char text[100000] = "{{ ";
        for (size_t at = 3; at + 10 < sizeof text; at += strlen(DEEP[i]))
            memcpy(text + at, DEEP[i], strlen(DEEP[i]) + 1);
        assert_true(render(sv(text), &input, &got, &error) < 0);
    }
    assert_int_equal(render((StringView){"a\xff", 2}, &input, &got, &error), ERROR_FORMAT);
}

/* A prompt as long as a context holds renders, and quickly: its length decides how many steps are allowed. */
static void test_long_message(void **state) {
    (void)state;
    size_t length = 8 << 20;
    char *text = malloc(length);
    assert_non_null(text);
    memset(text, 'a', length);
    JinjaInput input = input_of(&(JinjaMessage){sv("user"), {text, length}}, 1);
    JinjaOutput got;
    Error error;
    static const char JINJA[] = "{% for m in messages %}{% set c = m.content %}{% if '</think>' in c %}{% endif %}"
                                "{{ '<|' + m.role + '|>' + c | trim + eos_token }}{% endfor %}";
    assert_int_equal(render(sv(JINJA), &input, &got, &error), 0);
    assert_int_equal(got.length, length + strlen("<|user|></s>"));
    jinja_output_free(&got);
    free(text);
}

/* Some bytes of a template changed, removed or doubled: text or an error, and no crash. */
static size_t mutate(StringView text, uint64_t *random, char *out) {
    size_t begin = random_below(random, text.length), n = 1 + random_below(random, 12);
    size_t end = begin + n < text.length ? begin + n : text.length, length = 0;
    static const char SIGNS[] = "{}%#-+'\"\\()[]|.:, \n\xC3\x28"
                                "0aif";
    uint64_t kind = random_below(random, 4);
    memcpy(out, text.bytes, begin);
    length = begin;
    if (kind == 0) /* cut short */
        return length;
    if (kind == 1) { /* one sign for another */
        out[length++] = SIGNS[random_below(random, sizeof SIGNS - 1)];
        end = begin + 1;
    } else if (kind == 2) { /* twice, elsewhere */
        size_t from = random_below(random, text.length);
        size_t piece = text.length - from < 40 ? text.length - from : 40;
        memcpy(out + length, text.bytes + from, piece);
        length += piece;
    }
    memcpy(out + length, text.bytes + end, text.length - end);
    return length + text.length - end;
}

static void test_damaged_templates(void **state) {
    (void)state;
    cJSON *json = read_cases();
    const cJSON *item;
    if (json == NULL)
        skip();
    static const JinjaMessage messages[] = {{{"system", 6}, {"S", 1}},
                                            {{"user", 4}, {" a ", 3}},
                                            {{"assistant", 9}, {"</think>b", 9}},
                                            {{"user", 4}, {"\xC3\xA9", 2}}};
    uint64_t random = 1;
    alarm(HANG_SECONDS);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "templates")) {
        StringView text = string_of(item);
        for (int i = 0; i < MUTATIONS; i++) {
            char *damaged = malloc(text.length + 64); /* exactly as long as what is read, for AddressSanitizer */
            assert_non_null(damaged);
            size_t length = mutate(text, &random, damaged);
            damaged = realloc(damaged, length + 1);
            JinjaInput input = input_of(messages, 4);
            JinjaOutput got;
            Error error;
            int status = render((StringView){damaged, length}, &input, &got, &error);
            assert_true(status == 0 || (error.message[0] != '\0' && strchr(error.message, '\n') == NULL));
            jinja_output_free(&got);
            free(damaged);
        }
    }
    alarm(0);
    cJSON_Delete(json);
}

typedef enum Verdict { SAME, REFUSED, DIFFERENT, N_VERDICTS } Verdict;

/* One case against Jinja2; *error says why what it renders is refused. */
static Verdict judge(const cJSON *item, const cJSON *templates, Error *error) {
    const cJSON *rendered = cJSON_GetObjectItemCaseSensitive(item, "rendered");
    JinjaOutput got;
    int status = render_case(item, templates, &got, error);
    bool same = cJSON_IsString(rendered) ? status == 0 && is_text(&got, rendered->valuestring) : status < 0;
    jinja_output_free(&got);
    return same ? SAME : status < 0 ? REFUSED : DIFFERENT;
}

/* For jinja_cases.py --templates: a line for each template of directory/cases.json; whether none differs. */
static bool survey(const char *directory) {
    static const char *const WORDS[] = {"same", "refused", "DIFFERENT"};
    int counts[N_VERDICTS] = {0};
    cJSON *json = read_json(directory, "cases.json");
    const cJSON *item, *template, *templates = cJSON_GetObjectItemCaseSensitive(json, "templates");
    cJSON_ArrayForEach(template, templates) {
        Verdict worst = SAME;
        Error why = {0};
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "cases")) {
            Error error;
            if (strcmp(string_of(cJSON_GetObjectItemCaseSensitive(item, "name")).bytes, template->string) != 0)
                continue;
            Verdict verdict = judge(item, templates, &error);
            if (verdict > worst) {
                worst = verdict;
                why = error;
            }
        }
        counts[worst]++;
        printf("%-9s  %s%s%s\n", WORDS[worst], template->string, why.message[0] == '\0' ? "" : ": ", why.message);
    }
    printf("%d templates: %d the same as Jinja2 in all conversations, %d refused, %d different\n",
           cJSON_GetArraySize(templates), counts[SAME], counts[REFUSED], counts[DIFFERENT]);
    cJSON_Delete(json);
    return counts[DIFFERENT] == 0;
}

int main(int argc, char **argv) {
    if (argc == 2)
        return survey(argv[1]) ? 0 : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_jinja2),
        cmocka_unit_test(test_origin_of_each_byte),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_long_message),
        cmocka_unit_test(test_damaged_templates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
