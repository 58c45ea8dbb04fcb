package main

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// series is a line of a chart: seconds since the experiment began, and values.
type series struct {
	Name string
	X, Y []float64
}

func (s *series) add(x, y float64) { s.X, s.Y = append(s.X, x), append(s.Y, y) }

// mark is a moment at which something was done.
type mark struct {
	At   float64
	What string
}

// chart has one unit of measure; charts of one experiment stand above one another, over the same time.
type chart struct {
	Title, Unit string
	Lines       []*series
	Marks       []mark
}

const chartWidth, chartHeight = 26 * vg.Centimeter, 7 * vg.Centimeter

// drawing writes a PNG with all charts of an experiment into folder.
func drawing(folder, name string, charts []*chart) (string, error) {
	canvas := vgimg.New(chartWidth, chartHeight*vg.Length(len(charts)))
	grid := make([][]*plot.Plot, len(charts))
	for i, c := range charts {
		p, err := c.plot()
		if err != nil {
			return "", fmt.Errorf("draw %s: %w", name, err)
		}
		grid[i] = []*plot.Plot{p}
	}
	tiles := draw.Tiles{Rows: len(charts), Cols: 1, PadTop: 5, PadBottom: 5, PadRight: 10, PadLeft: 5, PadY: 10}
	for i, row := range plot.Align(grid, tiles, draw.New(canvas)) {
		grid[i][0].Draw(row[0])
	}
	path := filepath.Join(folder, name+".png")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	_, err = vgimg.PngCanvas{Canvas: canvas}.WriteTo(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return path, err
}

func (c *chart) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text, p.X.Label.Text = c.Title, c.Unit, "seconds"
	p.Y.Min = 0
	p.Legend.Top = true
	p.BackgroundColor = color.White
	p.Add(plotter.NewGrid())
	top := 0.0
	for i, s := range c.Lines {
		points := make(plotter.XYs, len(s.X))
		for k := range s.X {
			points[k].X, points[k].Y = s.X[k], s.Y[k]
			top = max(top, s.Y[k])
		}
		if len(points) == 0 {
			continue
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Dashes, line.Width = plotutil.Color(i), plotutil.Dashes(i/7), vg.Points(1.2)
		p.Add(line)
		if s.Name != "" {
			p.Legend.Add(s.Name, line)
		}
	}
	for _, m := range c.Marks {
		line, err := plotter.NewLine(plotter.XYs{{X: m.At}, {X: m.At, Y: top * 1.15}})
		if err != nil {
			return nil, err
		}
		line.Color, line.Dashes = color.Gray{128}, []vg.Length{vg.Points(2), vg.Points(2)}
		text, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: m.At, Y: top * 1.1}}, Labels: []string{" " + m.What}})
		if err != nil {
			return nil, err
		}
		p.Add(line, text)
	}
	p.Y.Max = max(top*1.4, 1e-9) // room for marks and legend
	return p, nil
}
