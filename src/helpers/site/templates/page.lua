-- What Quarto adds to Pandoc, as far as pages use it: callouts, links between pages, and tables that scroll.
-- Markup that Pandoc could not read as such is an error, or it would stand in the page as text.

local CALLOUTS = { note = "Note", tip = "Tip", warning = "Warning", caution = "Caution", important = "Important" }

local function refuse(message, ...)
  io.stderr:write(message:format(...))
  os.exit(1)
end

local function line_at(inlines, start)
  local words = pandoc.Inlines({})
  for place = start, #inlines do
    if inlines[place].t == "SoftBreak" then break end
    words:insert(inlines[place])
  end
  return pandoc.utils.stringify(words)
end

-- Refuse lines of a paragraph that look like the beginning of a block.
local function check_lines(paragraph)
  for place, inline in ipairs(paragraph.content) do
    local is_first = place == 1
    if is_first or inline.t == "SoftBreak" then
      local line = line_at(paragraph.content, is_first and 1 or place + 1)
      if line:match("^:::") then
        refuse("'%s' closes a div that was never opened: remove it, or open the div.", line)
      elseif line:match("^```") or line:match("^~~~") then
        refuse("the block opened by '%s' is never closed: add '%s'.", line, line:sub(1, 3))
      elseif line:match("^|") or not is_first and (
        line:match("^#+ ") or line:match("^[-*+>] ") or line:match("^%d+[.)] ")
      ) then
        refuse("put a blank line before '%s', or it is read as the rest of the paragraph above.", line)
      end
    end
  end
end

local function callout(div, kind)
  if not CALLOUTS[kind] then
    refuse("'.callout-%s' is no callout. Use note, tip, warning, caution or important.", kind)
  end
  local title = pandoc.Inlines(div.attributes.title or "")
  if #title == 0 and div.content[1] and div.content[1].t == "Header" then
    title = div.content:remove(1).content
  end
  if #title == 0 then title = pandoc.Inlines(CALLOUTS[kind]) end
  local outer, inner, collapse = "div", "div", div.attributes.collapse
  if collapse then
    outer, inner = "details", "summary"
  end
  local open = ('<%s class="cb-callout cb-callout-%s"%s><%s class="cb-callout-title">'):format(
    outer, kind, collapse == "false" and " open" or "", inner
  )
  title:insert(1, pandoc.RawInline("html", open))
  title:insert(pandoc.RawInline("html", "</" .. inner .. ">"))
  local blocks = pandoc.Blocks({ pandoc.Plain(title) })
  blocks:extend(div.content)
  blocks:insert(pandoc.RawBlock("html", "</" .. outer .. ">"))
  return blocks
end

return {
  {
    Para = check_lines,
    Plain = check_lines,
    Link = function(link)
      if not link.target:match("://") then
        link.target = link.target:gsub("%.qmd$", ".html"):gsub("%.qmd([?#])", ".html%1")
      end
      return link
    end,
    Image = function(image)
      image.attributes.alt, image.attributes["fig-alt"] = image.attributes["fig-alt"], nil
      return image
    end,
    Table = function(box)
      box.classes:insert("table")
      return pandoc.Div(box, { class = "cb-scroll", tabindex = "0" })
    end,
    Div = function(div)
      for _, class in ipairs(div.classes) do
        local kind = class:match("^callout%-(.+)")
        if kind then return callout(div, kind) end
      end
    end,
  },
}
