"use strict";

// ---- leaderboards: sorting, filters, and which values are best

function sortBy(table, head, column) {
  const descending = head.getAttribute("aria-sort") === "descending";
  const scores = head.dataset.better !== undefined;
  const fresh = !head.hasAttribute("aria-sort");
  // The best first.
  const first = scores && head.dataset.better !== "lower" ? "descending" : "ascending";
  const direction = fresh ? first : descending ? "ascending" : "descending";
  for (const other of table.tHead.rows[1].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  const sign = direction === "descending" ? -1 : 1;
  const key = (row) => {
    const cell = row.cells[column];
    return scores ? Number(cell.dataset.value ?? NaN) : cell.textContent;
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (!scores) return sign * x.localeCompare(y, "en", { numeric: true });
    // What has no value stands last, whichever the direction.
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  updatePictures(table);
}

/** The number among `values` that is best, none without one or where neither way is better. */
function bestOf(values, better) {
  return better && values.length ? (better === "lower" ? Math.min : Math.max)(...values) : undefined;
}

function markBest(table) {
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden && !row.classList.contains("control"));
  [...table.tHead.rows[1].cells].forEach((head, column) => {
    const cells = [...table.tBodies[0].rows].map((row) => row.cells[column]);
    for (const cell of cells) cell.classList.remove("best");
    // Figures as shown: what looks equal is marked alike.
    const shown = rows.map((row) => row.cells[column]).filter((cell) => cell.dataset.value !== undefined);
    const value = (cell) => Number(cell.firstElementChild.textContent);
    if (!head.dataset.better || shown.length < 2) return;
    const best = bestOf(shown.map(value), head.dataset.better);
    for (const cell of shown) cell.classList.toggle("best", value(cell) === best);
  });
}

/** The pictures show the table's rows in its order, controls below the others, and the best of them. */
function updatePictures(table) {
  const place = new Map([...table.tBodies[0].rows].map((row, at) => [row.dataset.run, { at, hidden: row.hidden }]));
  for (const figure of table.closest(".board").querySelectorAll(".forest figure")) {
    const control = (row) => row.classList.contains("control");
    const list = figure.querySelector("ul");
    const rows = [...list.children].sort(
      (a, b) => control(a) - control(b) || place.get(a.dataset.run).at - place.get(b.dataset.run).at,
    );
    list.append(...rows);
    for (const row of rows) row.hidden = place.get(row.dataset.run).hidden;
    const shown = rows.filter((row) => !row.hidden);
    const value = (row) => Number(row.dataset.value);
    const ranked = shown.filter((row) => !control(row));
    const best = ranked.find((row) => value(row) === bestOf(ranked.map(value), figure.dataset.better));
    const first = ranked.length ? shown.find(control) : undefined;
    const at = best?.querySelector("circle").getAttribute("cx");
    for (const row of rows) {
      row.classList.toggle("best", ranked.includes(row) && row.lastChild.textContent === best.lastChild.textContent);
      row.classList.toggle("first", row === first);
      const line = row.querySelector(".reference");
      line?.toggleAttribute("hidden", !best);
      for (const end of ["x1", "x2"]) if (at) line?.setAttribute(end, at);
    }
  }
}

function applyFilters(table, inputs) {
  for (const row of table.tBodies[0].rows) {
    row.hidden = inputs.some(({ dataset: { filter }, value }) => {
      if (filter === "category" || !value) return false;
      if (filter === "run") return !row.cells[0].textContent.toLowerCase().includes(value.toLowerCase());
      return row.dataset[filter] !== value;
    });
  }
  const category = inputs.find((input) => input.dataset.filter === "category")?.value;
  for (const cell of table.closest(".board").querySelectorAll("[data-category]")) {
    cell.hidden = Boolean(category) && cell.dataset.category !== category;
  }
  // A part that is chosen is there to be seen.
  if (category) table.closest(".board").querySelector(".forest:not([hidden])")?.setAttribute("open", "");
  markBest(table);
  updatePictures(table);
}

for (const table of document.querySelectorAll("table.leaderboard")) {
  const inputs = [...table.parentElement.previousElementSibling.querySelectorAll("[data-filter]")];
  for (const input of inputs) input.addEventListener("input", () => applyFilters(table, inputs));
  [...table.tHead.rows[1].cells].forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => sortBy(table, head, column));
  });
  // A browser keeps choices over a reload.
  applyFilters(table, inputs);
}

// On paper nothing can be unfolded.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll(".forest")) part.open = true;
});

// ---- phrases that texts share

const PHRASE = 3;

function words(text) {
  const found = text.matchAll(/[\p{L}\p{N}\p{M}]+(?:['’][\p{L}\p{N}\p{M}]+)*/gu);
  return [...found].map((match) => ({
    word: match[0].toLowerCase().replaceAll("’", "'"),
    start: match.index,
    end: match.index + match[0].length,
  }));
}

const key = (list, at) => list.slice(at, at + PHRASE).join(" ");

/** The phrases of texts, to look others up in: their words, and where each run of three words begins. */
function phrasesOf(texts) {
  return texts.map((text) => {
    const list = words(text).map(({ word }) => word);
    const begins = new Map();
    for (let at = 0; at + PHRASE <= list.length; at++) {
      const here = key(list, at);
      begins.set(here, [...(begins.get(here) ?? []), at]);
    }
    return { list, begins };
  });
}

/** Of each word the number of the shared phrase it is part of, 0 for none; overlapping phrases count as one. */
function shared(list, sources) {
  const phrase = new Array(list.length).fill(0);
  let count = 0;
  let end = 0;
  for (let at = 0; at + PHRASE <= list.length; at++) {
    const here = key(list, at);
    let longest = 0;
    for (const source of sources) {
      for (const begin of source.begins.get(here) ?? []) {
        let length = PHRASE;
        while (at + length < list.length && list[at + length] === source.list[begin + length]) length++;
        longest = Math.max(longest, length);
      }
    }
    if (!longest) continue;
    if (at >= end) count++;
    if (at + longest > end) {
      phrase.fill(count, at, at + longest);
      end = at + longest;
    }
  }
  return phrase;
}

/** `text` in an element, its phrases in `marks` ({class: sources}) marked; the first class wins. */
function marked(name, text, marks) {
  const element = create(name, "text");
  const found = words(text);
  const list = found.map(({ word }) => word);
  const of = found.map(() => ["", 0]);
  for (const [kind, sources] of Object.entries(marks)) {
    shared(list, sources).forEach((phrase, at) => {
      if (phrase && !of[at][1]) of[at] = [kind, phrase];
    });
  }
  let done = 0;
  for (let at = 0; at < found.length; ) {
    const [kind, phrase] = of[at];
    let last = at;
    while (last + 1 < found.length && of[last + 1][0] === kind && of[last + 1][1] === phrase) last++;
    if (phrase) {
      element.append(text.slice(done, found[at].start), create("mark", kind, text.slice(found[at].start, found[last].end)));
      done = found[last].end;
    }
    at = last + 1;
  }
  element.append(text.slice(done));
  return element;
}

// ---- instances

function create(name, className = "", ...content) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

const bdi = (text) => create("bdi", "", text);

/** What is packed in the element of an id. */
async function unpacked(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** An instance with its texts in the place of the numbers of their `pieces`. */
function withTexts(content, pieces) {
  const text = (numbers) => numbers.map((number) => pieces[number]).join("");
  const record = (one) => ({ ...one, text: text(one.text) });
  return {
    ...content,
    long: content.long.map(([label, value]) => [label, text(value)]),
    reference: text(content.reference),
    history: content.history.map(record),
    peers: content.peers?.map(record),
    texts: content.texts.map((one) => ({
      ...one,
      text: text(one.text),
      calls: one.calls.map(([prompt, answer]) => [prompt, text(answer)]),
    })),
    prompts: content.prompts.map(([stage, system, user]) => [stage, text(system), text(user)]),
  };
}

const DAY = 86400000;

const factsOf = (facts) => facts.flatMap(([label, value]) => [` · ${label}: `, bdi(value)]);

function recordOf({ head, facts, text, day }, marks) {
  const date = new Date(day * DAY);
  const written = day !== null && !Number.isNaN(date.getTime()) ? ` · ${date.toISOString().slice(0, 10)}` : "";
  return create("li", "", create("p", "head", create("b", "", bdi(head)), written, ...factsOf(facts)), marked("p", text, marks));
}

function records(title, list, marks) {
  const box = create("details", "records", create("summary", "", `${title} (${list.length})`));
  box.open = true;
  const items = create("ol", "", ...list.map((record) => recordOf(record, marks)));
  items.tabIndex = 0;
  items.setAttribute("aria-label", title);
  box.append(list.length ? items : create("p", "", "None."));
  return box;
}

function promptsOf(written, content, problem) {
  if (!written.calls.length && written.complete) return create("p", "none", "Asks no language model.");
  const count = written.calls.length;
  const box = create("details", "prompts", create("summary", "", count === 1 ? "Prompt" : `Prompts (${count})`));
  const text = (of) => create("pre", "text", of);
  box.addEventListener(
    "toggle",
    () => {
      for (const [prompt, answer] of written.calls) {
        const [stage, system, user] = content.prompts[prompt];
        box.append(create("h5", "", stage), create("h6", "", "System"), text(system), create("h6", "", "User"), text(user));
        box.append(create("h6", "", "Answer"), create("pre", "text", answer));
      }
      const why = problem || "they were written by another version of the prompts, or are not there";
      if (!written.complete) box.append(create("p", "", `Not all prompts can be shown: ${why}.`));
    },
    { once: true },
  );
  return box;
}

function scoresOf(scores, columns) {
  const list = create("dl", "of-text");
  for (const [name, value] of Object.entries(scores)) {
    const { head, decimals } = columns[name];
    const term = Object.assign(create("dt", "", head), { title: name });
    list.append(create("div", "", term, create("dd", "", value.toFixed(decimals))));
  }
  return list;
}

function instanceView(content, index, chosen) {
  const reference = phrasesOf([content.reference]);
  const history = phrasesOf(content.history.map(({ text }) => text));
  const marks = { reference, history };
  const head = create("h3", "", bdi(content.title));
  const given = create("p", "", "User: ", bdi(content.user), ...factsOf(content.facts));
  const long = content.long.map(([label, text]) =>
    create("details", "", create("summary", "", label), create("p", "text", text || "None.")),
  );
  const name = create("h4", "", `The real ${index.target}`);
  const real = create("article", "real", name, marked("p", content.reference, { history }));
  const texts = content.texts.filter(({ run }) => chosen.has(run)).map((written) => {
    const { label, problem } = index.runs[written.run];
    const text = written.text ? marked("p", written.text, marks) : create("p", "none", "An empty text.");
    const card = create("article", "", create("h4", "", bdi(label)), text);
    if (written.cut_off) card.append(create("p", "none", "Cut off at the longest length allowed."));
    card.append(scoresOf(written.scores, index.columns), promptsOf(written, content, problem));
    return card;
  });
  const context = create(
    "div",
    "cards two",
    records(index.history, content.history, { reference }),
    ...(content.peers ? [records("What peers wrote", content.peers, { reference })] : []),
  );
  return [head, given, ...long, create("div", "cards", real, ...texts), context];
}

const SHOWN_AT_FIRST = 12;

/** Starts the viewer of an index; `number` ends the ids of its elements. */
function startViewer(index, number) {
  const part = (id) => document.getElementById(`${id}${number}`);
  const [category, search, instance] = ["category", "search", "instance"].map(part);
  const [viewer, position] = ["viewer", "position"].map(part);
  const runs = part("runs");
  const option = (value, text) => Object.assign(create("option", "", text), { value });

  index.runs.forEach(({ label }, run) => {
    const box = Object.assign(create("input"), { type: "checkbox", value: run, checked: run < SHOWN_AT_FIRST });
    runs.append(create("label", "", box, " ", bdi(label)));
  });
  category.append(option("", "all"), ...Object.entries(index.categories).map((entry) => option(...entry)));

  let latest = 0;
  const kept = new Map();
  /** What is packed in an element, unpacked once. */
  function once(id) {
    if (!kept.has(id)) kept.set(id, unpacked(id));
    return kept.get(id);
  }
  let last = "";
  async function show() {
    const { selectedIndex, length } = instance.options;
    position.textContent = length ? `${selectedIndex + 1} of ${length}` : "none found";
    for (const [id, step] of [["previous", -1], ["next", 1]]) {
      part(id).disabled = !instance.options[selectedIndex + step];
    }
    const request = ++latest;
    if (!length) return viewer.replaceChildren();
    let view;
    try {
      const at = instance.value % index.together;
      const name = `instances${number}-${instance.value - at}`;
      // Of instances a few are held at a time.
      if (last !== name) kept.delete(last);
      last = name;
      const packed = (await once(name))[at];
      const content = withTexts(packed, await once(`pieces${number}-${packed.pieces}`));
      const chosen = new Set([...runs.querySelectorAll(":checked")].map((box) => Number(box.value)));
      view = instanceView(content, index, chosen);
    } catch (error) {
      if (typeof DecompressionStream !== "undefined") throw error;
      view = [create("p", "", "This browser is too old to unpack the instances; use one of 2023 or later.")];
    }
    // Another one may have been asked for meanwhile.
    if (request === latest) viewer.replaceChildren(...view);
  }

  function list() {
    const wanted = search.value.toLowerCase();
    const old = instance.value;
    const options = [];
    index.instances.forEach(({ id, category: of, title }, number) => {
      const fits = !category.value || category.value === of;
      // The isolates keep a title's own direction to itself.
      if (fits && `${id} ${title}`.toLowerCase().includes(wanted)) options.push(option(number, `${id} · \u2068${title}\u2069`));
    });
    instance.replaceChildren(...options);
    if (options.some(({ value }) => value === old)) instance.value = old;
    show();
  }

  function step(by) {
    instance.selectedIndex += by;
    show();
  }

  part("choose").addEventListener("submit", (event) => event.preventDefault());
  part("previous").addEventListener("click", () => step(-1));
  part("next").addEventListener("click", () => step(1));
  instance.addEventListener("change", show);
  runs.addEventListener("change", show);
  search.addEventListener("input", list);
  category.addEventListener("change", list);
  list();
}

// The first screen is painted before an instance is unpacked.
for (const index of document.querySelectorAll("script[id^=index]")) {
  requestAnimationFrame(() => setTimeout(() => startViewer(JSON.parse(index.textContent), index.id.slice("index".length))));
}
