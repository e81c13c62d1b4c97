// Looks at pages of results in Chromium: node report_page.js CHROMIUM FOLDER. Says what it saw of FOLDER/NAME.html, for each NAME in
// the file's name list, as one line of JSON, and leaves screenshots beside them. Whether that is right is for tests/report_page.rs.
"use strict";
const fs = require("fs");
const path = require("path");
const { chromium } = require("playwright-core");

const [executablePath, folder] = process.argv.slice(2);

// For each plot: the pixels of its canvas in the colour of each of its series, and how many colours there are at all. Null where
// the page's data cannot be read.
const plots = () => {
  const style = getComputedStyle(document.documentElement);
  let data;
  try {
    data = JSON.parse(document.getElementById("plots").textContent);
  } catch {
    return null;
  }
  return Array.from(document.querySelectorAll(".plot")).map((place, at) => {
    const canvas = place.querySelector("canvas");
    if (canvas === null) return null;
    const { width, height } = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const counts = new Map();
    for (let i = 0; i < pixels.length; i += 4) {
      // As text, for the alpha makes it more than 31 bits; what is untouched is all zero.
      const key = [pixels[i], pixels[i + 1], pixels[i + 2], pixels[i + 3]].join();
      if (pixels[i + 3] !== 0) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const series = data[at].series.map((one, number) => {
      const colour = style.getPropertyValue(`--series-${number % 8}`).trim();
      const [red, green, blue] = [1, 3, 5].map((digit) => parseInt(colour.slice(digit, digit + 2), 16));
      return { name: one.name, pixels: counts.get(`${red},${green},${blue},255`) ?? 0 };
    });
    const legend = Array.from(place.querySelectorAll(".u-legend .u-label")).map((label) => label.textContent);
    return { colours: counts.size, width, height, series, legend };
  });
};

// A page in a window of its own, with all that it asks for and complains of.
const open = async (browser, file, options) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const seen = { requests: [], complaints: [] };
  await context.route("**", (route) => {
    seen.requests.push(route.request().url());
    return route.request().url().startsWith("file:") ? route.continue() : route.abort();
  });
  const page = await context.newPage();
  page.on("console", (message) => seen.complaints.push(message.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  await page.goto(`file://${file}`, { waitUntil: "load" });
  return { context, page, seen };
};

const look = async (browser, name) => {
  const file = path.join(folder, `${name}.html`);
  const report = { name, file: `file://${file}` };
  for (const colorScheme of ["light", "dark"]) {
    const { context, page, seen } = await open(browser, file, { colorScheme });
    report[colorScheme] = await page.evaluate(plots);
    report[`${colorScheme}_background`] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.screenshot({ path: path.join(folder, `${name}-${colorScheme}.png`), fullPage: true });
    if (colorScheme === "light") {
      // Another scheme and another width, on the page as it is.
      await page.emulateMedia({ colorScheme: "dark" });
      await page.setViewportSize({ width: 480, height: 900 });
      await page.waitForFunction(() => {
        const place = document.querySelector(".plot");
        const drawn = place?.querySelector(".uplot");
        return !drawn || drawn.clientWidth === place.clientWidth;
      });
      report.narrow = await page.evaluate(plots);
      report.sideways = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      await page.screenshot({ path: path.join(folder, `${name}-narrow.png`), fullPage: true });
    }
    report[`${colorScheme}_seen`] = seen;
    await context.close();
  }
  const plain = await open(browser, file, { javaScriptEnabled: false });
  report.without_script = await plain.page.innerText("main");
  await plain.context.close();
  return report;
};

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    for (const name of JSON.parse(fs.readFileSync(path.join(folder, "names.json"), "utf8"))) {
      console.log(JSON.stringify(await look(browser, name)));
    }
  } finally {
    await browser.close();
  }
})();
