/** Result of one part of the check. */
export interface SectionResult {
  readonly name: string
  readonly state: 'passed' | 'failed' | 'left out'
  readonly seconds: number
  /** One line for the page. */
  readonly summary: string
  /** Numbers for the JSON file. */
  readonly details?: unknown
}

/** A part of the check: a line and numbers; throws where the part fails. */
export interface Section {
  readonly name: string
  readonly run: () => Promise<Pick<SectionResult, 'summary' | 'details'>>
}

/** Runs the parts in order. A part that would begin after `deadline` (milliseconds of `now`) is left out. A part that fails stops no other part. */
export const runSections = async (
  sections: readonly Section[],
  deadline: number,
  say: (line: string) => void,
  now: () => number = () => performance.now()
): Promise<readonly SectionResult[]> => {
  const results: SectionResult[] = []
  for (const { name, run } of sections) {
    const start = now()
    const seconds = () => Math.round((now() - start) / 100) / 10
    const result: SectionResult =
      start >= deadline
        ? { name, state: 'left out', seconds: 0, summary: 'the time was over' }
        : await run().then(
            (done) => ({ name, state: 'passed', seconds: seconds(), ...done }),
            (error: Error) => ({
              name,
              state: 'failed',
              seconds: seconds(),
              summary: error.message.split('\n').slice(0, 3).join(' ')
            })
          )
    say(`${result.state}: ${name} (${result.seconds} s): ${result.summary}`)
    results.push(result)
  }
  return results
}

/** The results as a page in Markdown. */
export const checkPage = (title: string, facts: Readonly<Record<string, string>>, results: readonly SectionResult[]): string => {
  const row = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll('\n', ' ')).join(' | ')} |`
  return [
    `# ${title}`,
    '',
    ...Object.entries(facts).map(([name, value]) => `- ${name}: ${value}`),
    '',
    row(['part', 'state', 'seconds', 'result']),
    '|---|---|---|---|',
    ...results.map(({ name, state, seconds, summary }) => row([name, state, String(seconds), summary])),
    ''
  ].join('\n')
}
