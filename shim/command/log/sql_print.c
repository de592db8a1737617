/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: rows as a table, as CSV, as JSON Lines, or, into a pipe, with tabs and
 * nothing else.
 */
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "command/log/sql.h"

#define WIDTH_ROWS 1000 /* that are looked at for how wide a column is */
#define WIDTH_MAX 60

/* ---- JSON and CSV ---- */

static void put_json_value(struct json *j, sqlite3_stmt *s, int column)
{
	const char *text;

	switch (sqlite3_column_type(s, column)) {
	case SQLITE_INTEGER:
		json_int(j, sqlite3_column_int64(s, column));
		break;
	case SQLITE_FLOAT:
		json_double(j, sqlite3_column_double(s, column));
		break;
	case SQLITE_NULL:
		json_null(j);
		break;
	default:
		text = (const char *)sqlite3_column_text(s, column);
		json_bytes(j, text ? text : "", (size_t)sqlite3_column_bytes(s, column));
	}
}

static void put_json_row(sqlite3_stmt *s, FILE *out)
{
	struct json j = {.out = out};
	int i, n = sqlite3_column_count(s);

	json_begin(&j, '{');
	for (i = 0; i < n; i++) {
		json_key(&j, sqlite3_column_name(s, i));
		put_json_value(&j, s, i);
	}
	json_end(&j, '}');
	json_newline(&j);
}

/* RFC 4180: in quotes where it has to be. */
static void put_csv_text(FILE *out, const char *text, size_t size)
{
	size_t i;
	bool quoted = memchr(text, ',', size) || memchr(text, '"', size) ||
		      memchr(text, '\n', size) || memchr(text, '\r', size);

	if (quoted)
		fputc('"', out);
	for (i = 0; i < size; i++) {
		if (text[i] == '"')
			fputc('"', out);
		fputc(text[i], out);
	}
	if (quoted)
		fputc('"', out);
}

static void put_csv_row(sqlite3_stmt *s, FILE *out, bool header)
{
	int i, n = sqlite3_column_count(s);

	for (i = 0; i < n; i++) {
		const char *text =
		    header ? sqlite3_column_name(s, i) : (const char *)sqlite3_column_text(s, i);

		if (i)
			fputc(',', out);
		if (text)
			put_csv_text(out, text, strlen(text));
	}
	fputs("\r\n", out);
}

static void put_tab_row(sqlite3_stmt *s, FILE *out)
{
	int i, n = sqlite3_column_count(s);

	for (i = 0; i < n; i++) {
		const char *text = (const char *)sqlite3_column_text(s, i);

		if (i)
			fputc('\t', out);
		terminal_put_text(out, text ? text : "", (size_t)sqlite3_column_bytes(s, i));
	}
	fputc('\n', out);
}

/* ---- a table ---- */

struct grid {
	int columns, rows;
	char **cells; /* of the first rows, whose widths are those of all */
	size_t *widths;
	bool *numbers;
};

static char *cell_of(sqlite3_stmt *s, int column)
{
	const char *text = (const char *)sqlite3_column_text(s, column);
	char clean[4096];

	terminal_fit(clean, sizeof(clean), text ? text : "", terminal_width() ? WIDTH_MAX : 0);
	return strdup(clean);
}

static void put_cell(const struct grid *g, FILE *out, const char *text, int column)
{
	size_t used = terminal_columns(text), width = g->widths[column];
	int blanks = used < width ? (int)(width - used) : 0;
	bool last = column + 1 == g->columns;

	if (g->numbers[column])
		fprintf(out, "%*s%s", blanks, "", text);
	else
		fprintf(out, "%s%*s", text, last ? 0 : blanks, "");
	fputs(last ? "\n" : "  ", out);
}

static void put_head(const struct grid *g, sqlite3_stmt *s, FILE *out)
{
	int i;
	size_t n;

	fputs(terminal_colour(COLOUR_BOLD), out);
	for (i = 0; i < g->columns; i++)
		put_cell(g, out, sqlite3_column_name(s, i), i);
	fputs(terminal_colour(COLOUR_PLAIN), out);
	for (i = 0; i < g->columns; i++) {
		for (n = 0; n < g->widths[i]; n++)
			fputc('-', out);
		fputs(i + 1 == g->columns ? "\n" : "  ", out);
	}
}

static bool grid_open(struct grid *g, sqlite3_stmt *s)
{
	int i;

	memset(g, 0, sizeof(*g));
	g->columns = sqlite3_column_count(s);
	g->cells = calloc((size_t)g->columns * WIDTH_ROWS + 1, sizeof(*g->cells));
	g->widths = calloc((size_t)g->columns + 1, sizeof(*g->widths));
	g->numbers = calloc((size_t)g->columns + 1, sizeof(*g->numbers));
	if (!g->cells || !g->widths || !g->numbers)
		return false;
	for (i = 0; i < g->columns; i++) {
		g->widths[i] = terminal_columns(sqlite3_column_name(s, i));
		g->numbers[i] = true;
	}
	return true;
}

static void grid_close(struct grid *g)
{
	int i;

	for (i = 0; g->cells && i < g->rows * g->columns; i++)
		free(g->cells[i]);
	free(g->cells);
	free(g->widths);
	free(g->numbers);
}

/* Takes a row for the widths. False: no memory. */
static bool grid_take(struct grid *g, sqlite3_stmt *s)
{
	int i;

	for (i = 0; i < g->columns; i++) {
		int type = sqlite3_column_type(s, i);
		char *cell = cell_of(s, i);

		g->cells[g->rows * g->columns + i] = cell;
		if (!cell)
			return false;
		if (terminal_columns(cell) > g->widths[i])
			g->widths[i] = terminal_columns(cell);
		if (type != SQLITE_INTEGER && type != SQLITE_FLOAT && type != SQLITE_NULL)
			g->numbers[i] = false;
	}
	g->rows++;
	return true;
}

static void grid_flush(struct grid *g, sqlite3_stmt *s, FILE *out)
{
	int i;

	put_head(g, s, out);
	for (i = 0; i < g->rows * g->columns; i++)
		put_cell(g, out, g->cells[i], i % g->columns);
}

static int print_grid(sqlite3_stmt *s, FILE *out)
{
	struct grid g;
	int r = grid_open(&g, s) ? SQLITE_ROW : SQLITE_NOMEM, i;

	while (r == SQLITE_ROW && g.rows < WIDTH_ROWS && (r = sqlite3_step(s)) == SQLITE_ROW)
		if (!grid_take(&g, s))
			r = SQLITE_NOMEM;
	if (r == SQLITE_ROW || r == SQLITE_DONE)
		grid_flush(&g, s, out);
	while (r == SQLITE_ROW && (r = sqlite3_step(s)) == SQLITE_ROW && !terminal_is_gone()) {
		for (i = 0; i < g.columns; i++) {
			char *cell = cell_of(s, i);

			put_cell(&g, out, cell ? cell : "", i);
			free(cell);
		}
	}
	grid_close(&g);
	return r;
}

int sql_print(struct sql *q, sqlite3_stmt *s, FILE *out)
{
	const struct log_options *o = q->options;
	int r;

	if (!o->json && !o->csv && (o->table || terminal_width()))
		return print_grid(s, out);
	if (o->csv)
		put_csv_row(s, out, true);
	while ((r = sqlite3_step(s)) == SQLITE_ROW && !terminal_is_gone()) {
		if (o->json)
			put_json_row(s, out);
		else if (o->csv)
			put_csv_row(s, out, false);
		else
			put_tab_row(s, out);
	}
	return r;
}
