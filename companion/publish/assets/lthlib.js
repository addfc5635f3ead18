// Tables with a header row sort by a click on a column's name: numbers by value, cells without one last.
// A column without a name does not sort, and a header row without any name is not shown.
// Each cell bears its column's name, with which tables of sentences are shown on a phone.
// What is printed is printed whole: on white paper, what is folded away included.
(function () {
  "use strict";

  // A page opened from the file system may fetch no other: results of a search have no summaries.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  function key(row, column) {
    var text = row.cells[column] ? row.cells[column].textContent.trim() : "";
    var number = parseFloat(text.replace(/\u2212/g, "-").replace(/(\d)[,\u202f](?=\d{3})/g, "$1"));
    return { text: text, number: number };
  }

  function compare(a, b) {
    var numbers = !isNaN(a.number) && !isNaN(b.number);
    return numbers ? a.number - b.number : a.text.localeCompare(b.text);
  }

  function sortBy(table, header, column) {
    var direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    var body = table.tBodies[0];
    var rows = Array.prototype.map.call(body.rows, function (row) {
      return { row: row, key: key(row, column) };
    });
    var numeric = rows.some(function (item) { return !isNaN(item.key.number); });
    rows.sort(function (a, b) {
      var missing = numeric ? isNaN(a.key.number) - isNaN(b.key.number) : 0;
      return missing || direction * compare(a.key, b.key);
    });
    rows.forEach(function (item) { body.appendChild(item.row); });
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) {
      cell.removeAttribute("aria-sort");
    });
    header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  }

  function prepare(table) {
    if (!table.tHead || table.tHead.rows.length !== 1 || !table.tBodies.length) return;
    var heads = table.tHead.rows[0].cells;
    table.querySelectorAll("tbody td").forEach(function (cell) {
      cell.dataset.column = heads[cell.cellIndex] ? heads[cell.cellIndex].textContent : "";
      if (heads.length > 3 && cell.textContent.length > 40) table.classList.add("sentences");
    });
    table.tHead.hidden = !table.tHead.textContent.trim();
    if (table.tHead.hidden || table.tBodies[0].rows.length < 3) return;
    table.classList.add("sortable");
    Array.prototype.forEach.call(heads, function (header, column) {
      if (!header.textContent.trim()) return;
      var button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      while (header.firstChild) button.appendChild(header.firstChild);
      header.appendChild(button);
      button.addEventListener("click", function () { sortBy(table, header, column); });
    });
  }

  var theme, folded;
  window.addEventListener("beforeprint", function () {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    folded = document.querySelectorAll("article details:not([open])");
    folded.forEach(function (details) { details.open = true; });
  });
  window.addEventListener("afterprint", function () {
    document.documentElement.dataset.theme = theme;
    folded.forEach(function (details) { details.open = false; });
  });

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("article table.table").forEach(prepare);
    // What was unpacked from the offline file does not hold that file.
    document.querySelectorAll("article .online").forEach(function (words) {
      words.hidden = location.protocol === "file:";
    });
  });
})();
