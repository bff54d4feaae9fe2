// What was said, as files: plain text, SubRip and WebVTT. Words are {word, start, end}; a segment is a list of them.
const LINE = 42;
const LINES = 2;
const LONGEST = 7;
const SHORTEST = 1;

export const FORMATS = {
  txt: ["text/plain", (segments) => segments.map((words) => `${words.map(({ word }) => word).join(" ")}\n`).join("")],
  srt: ["application/x-subrip", (segments) =>
    cues(segments).map(({ start, end, lines }, n) => `${n + 1}\n${time(start, ",")} --> ${time(end, ",")}\n${lines.join("\n")}\n`).join("\n")],
  vtt: ["text/vtt", (segments) =>
    ["WEBVTT\n", ...cues(segments).map(({ start, end, lines }) => `${time(start, ".")} --> ${time(end, ".")}\n${lines.map(escaped).join("\n")}\n`)].join("\n")],
};

// Captions as broadcasters have them: two lines of 42 characters, for seven seconds at most.
export function cues(segments) {
  const runs = segments.flatMap(cut);
  return runs.map((run, n) => {
    const start = run[0].start;
    const next = runs[n + 1]?.[0].start ?? Infinity;
    return { start, end: Math.max(run.at(-1).end, Math.min(start + SHORTEST, next)), lines: wrap(run) };
  });
}

// Cut a segment into captions that are about equally long, each as long as it may be: as the endpoint does for files.
function cut(words) {
  for (let fewest = 1; fewest <= words.length; fewest++) {
    const runs = filled(words, Math.ceil(length(words) / fewest));
    if (runs.length <= fewest) return runs;
  }
  return [];
}

// Fill captions with words up to `most` characters or a word more, and no further than a caption holds.
function filled(words, most) {
  const runs = [];
  for (const word of words) {
    const run = runs.at(-1);
    if (run && fits([...run, word]) && length(run) < most) run.push(word);
    else runs.push([word]);
  }
  return runs;
}

function length(words) {
  return words.reduce((sum, { word }) => sum + word.length + 1, 0);
}

function fits(words) {
  return wrap(words).length <= LINES && words.at(-1).end - words[0].start <= LONGEST;
}

function wrap(words) {
  const lines = [];
  for (const { word } of words) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + word.length <= LINE) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function time(seconds, mark) {
  const whole = Math.round(seconds * 1000);
  const pad = (value, width) => String(Math.floor(value)).padStart(width, "0");
  return `${pad(whole / 3600000, 2)}:${pad((whole / 60000) % 60, 2)}:${pad((whole / 1000) % 60, 2)}${mark}${pad(whole % 1000, 3)}`;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
