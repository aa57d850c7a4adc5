import { Transform } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'

// Bracketed paste: the terminal sends a pasted text between two escape sequences, so that its line breaks are no Enter keys.

const [start, end] = ['\u001b[200~', '\u001b[201~']
export const enableBracketedPaste = '\u001b[?2004h'
export const disableBracketedPaste = '\u001b[?2004l'

/** Visible characters that stand for a line break and a tab of a pasted text while the line is edited. */
const symbols = { '\n': '\u240a', '\t': '\u2409' } as const

/** One line for the line editor: line breaks and tabs as symbols, without other control characters. */
export const pastedLine = (text: string): string =>
  [...text.replace(/\r\n?/g, '\n')]
    .map((character): string => symbols[character as keyof typeof symbols] ?? character)
    .filter((character) => character >= ' ' && character !== '\u007f')
    .join('')

/** The message of an edited line: symbols become line breaks and tabs again. */
export const messageOf = (line: string): string => line.replaceAll(symbols['\n'], '\n').replaceAll(symbols['\t'], '\t')

/** The length of the longest end of `text` that is a proper beginning of `sequence`. */
const partialLength = (text: string, sequence: string): number => {
  for (let n = sequence.length - 1; n > 0; n--) if (text.endsWith(sequence.slice(0, n))) return n
  return 0
}

/** The members of a terminal input that a stream lacks. */
interface TerminalInput extends NodeJS.ReadableStream {
  readonly isRaw?: boolean
  readonly setRawMode?: (mode: boolean) => unknown
}

/** The input with pasted texts as single lines (see `pastedLine`), for readline. */
export const withPastedLines = (input: TerminalInput): NodeJS.ReadableStream & { readonly close: () => void } => {
  const decoder = new StringDecoder('utf8')
  let [isPasting, pending, pasted] = [false, '', '']
  const consume = (text: string): string => {
    const sequence = isPasting ? end : start
    const at = text.indexOf(sequence)
    if (at >= 0) {
      const before = isPasting ? pastedLine(pasted + text.slice(0, at)) : text.slice(0, at)
      isPasting = !isPasting
      pasted = ''
      return before + consume(text.slice(at + sequence.length))
    }
    const partial = partialLength(text, sequence)
    const heldLength = !isPasting && partial === 1 ? 0 : partial // a single escape character is the Escape key
    pending = text.slice(text.length - heldLength)
    const rest = text.slice(0, text.length - heldLength)
    if (!isPasting) return rest
    pasted += rest
    return ''
  }
  const filter = new Transform({
    transform: (chunk: Buffer, _, done) => {
      const text = pending + decoder.write(chunk)
      pending = ''
      done(null, consume(text))
    },
    flush: (done) => done(null, isPasting ? pastedLine(pasted + pending) : pending)
  })
  input.pipe(filter)
  const close = (): void => {
    input.unpipe(filter)
    input.pause()
  }
  const setRawMode = (mode: boolean): void => void input.setRawMode?.(mode)
  return Object.assign(filter, { close, setRawMode })
}
