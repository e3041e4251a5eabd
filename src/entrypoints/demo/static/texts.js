// The page's texts in its language: the one that Gradio chose from the browser's, else its general form, else English.

const texts = JSON.parse(document.getElementById("voxport-texts").textContent);
const chosen = document.documentElement.lang;
const language = [chosen, chosen.split("-")[0], "en"].find((tag) => tag in texts);
document.documentElement.lang = language;

export function say(key, values = {}) {
  return texts[language][key].replace(/{(\w+)}/g, (_, name) => values[name]);
}
