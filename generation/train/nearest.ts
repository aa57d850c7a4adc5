/** How many letters have to be put in, left out or changed to make one word of the other. Source: Levenshtein 1966. */
const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length]!
}

const lastPart = (name: string): string => name.slice(name.lastIndexOf('.') + 1)

/** Which of the names a misspelt one probably means; of dotted names the last part counts too. */
export const nearest = (name: string, names: readonly string[]): string => {
  const cost = (other: string) => Math.min(distance(name, other), distance(lastPart(name), lastPart(other)) + 0.5)
  return names.reduce((best, other) => (cost(other) < cost(best) ? other : best))
}
