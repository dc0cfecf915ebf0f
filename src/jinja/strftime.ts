/** Dates as `strftime` writes them, in English and in the machine's own time zone. */

const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const months = "January February March April May June July August September October November December".split(" ");

export function formatTime(format: string, now: Date): string {
  return format.replace(/%(-?)([a-zA-Z%])/g, (all: string, dash: string, letter: string) => {
    const text = field(letter, now) ?? all;
    return dash === "-" && text !== all ? text.replace(/^0+(?=\d)/, "") : text;
  });
}

function field(letter: string, now: Date): string | undefined {
  const two = (value: number) => String(value).padStart(2, "0");
  const day = days[now.getDay()]!; // 0 to 6
  const month = months[now.getMonth()]!; // 0 to 11
  const hour12 = now.getHours() % 12 || 12;
  const ordinal = Math.round((startOfDay(now) - startOfDay(new Date(now.getFullYear(), 0, 1))) / 86_400_000);
  switch (letter) {
    case "a":
      return day.slice(0, 3);
    case "A":
      return day;
    case "w":
      return String(now.getDay());
    case "u":
      return String(now.getDay() || 7);
    case "d":
      return two(now.getDate());
    case "e":
      return String(now.getDate()).padStart(2);
    case "b":
    case "h":
      return month.slice(0, 3);
    case "B":
      return month;
    case "m":
      return two(now.getMonth() + 1);
    case "y":
      return two(now.getFullYear() % 100);
    case "Y":
      return String(now.getFullYear());
    case "H":
      return two(now.getHours());
    case "I":
      return two(hour12);
    case "p":
      return now.getHours() < 12 ? "AM" : "PM";
    case "M":
      return two(now.getMinutes());
    case "S":
      return two(now.getSeconds());
    case "f":
      return String(now.getMilliseconds() * 1000).padStart(6, "0");
    case "j":
      return String(ordinal + 1).padStart(3, "0");
    case "U":
      return two(Math.floor((ordinal + 7 - now.getDay()) / 7));
    case "W":
      return two(Math.floor((ordinal + 7 - ((now.getDay() + 6) % 7)) / 7));
    case "F":
      return formatTime("%Y-%m-%d", now);
    case "T":
    case "X":
      return formatTime("%H:%M:%S", now);
    case "R":
      return formatTime("%H:%M", now);
    case "D":
    case "x":
      return formatTime("%m/%d/%y", now);
    case "c":
      return formatTime("%a %b %e %H:%M:%S %Y", now);
    case "z":
    case "Z":
      return "";
    case "n":
      return "\n";
    case "t":
      return "\t";
    case "%":
      return "%";
    default:
      return undefined;
  }
}

function startOfDay(date: Date): number {
  return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
}
